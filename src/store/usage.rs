//! Tokens and cost by day, agent and model.

use rusqlite::{Transaction, params};

use super::{Store, StoreError, now};
use crate::model::{AgentName, ModelCall, Usage, UsageOverview};

const DAY: i64 = 24 * 3600;

/// Adds the calls of one run and its cost; returns what the run used in all.
pub(super) fn add_calls(
    t: &Transaction<'_>,
    agent: &AgentName,
    calls: &[ModelCall],
    cost_micros: u64,
) -> rusqlite::Result<Usage> {
    let mut upsert = t.prepare_cached(
        "INSERT INTO usage VALUES (?1, ?2, ?3, 1, ?4, ?5, ?6, ?7, ?8, ?9) ON CONFLICT DO UPDATE SET \
         calls = calls + 1, errors = errors + excluded.errors, input = input + excluded.input, \
         output = output + excluded.output, cache_read = cache_read + excluded.cache_read, \
         cache_write = cache_write + excluded.cache_write, cost_micros = cost_micros + excluded.cost_micros",
    )?;
    let mut total = Usage { cost_micros, ..Usage::default() };
    for (nth, call) in calls.iter().enumerate() {
        // The CLI reckons one cost for the whole run: it is booked with the first call.
        let cost = if nth == 0 { cost_micros } else { 0 };
        let failed = !(200..300).contains(&call.status);
        let used = call.usage;
        upsert.execute(params![
            now() / DAY,
            agent.as_str(),
            call.model,
            failed,
            used.input,
            used.output,
            used.cache_read,
            used.cache_write,
            cost
        ])?;
        total = total.plus(Usage { cost_micros: 0, ..used });
    }
    Ok(total)
}

impl Store {
    /// Books model calls that belong to no run (a turn that started by itself).
    ///
    /// # Errors
    /// When the commit failed.
    pub async fn add_usage(
        &self,
        agent: AgentName,
        calls: Vec<ModelCall>,
        cost_micros: u64,
    ) -> Result<(), StoreError> {
        self.transact("store usage", move |t| add_calls(t, &agent, &calls, cost_micros).map(|_| ())).await
    }

    /// Usage today and this month, UTC.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn usage(&self) -> Result<UsageOverview, StoreError> {
        self.read("sum up usage", |c| {
            let today = now() / DAY;
            let day_of_month = days_into_month(today);
            let sum = |since: i64| {
                c.query_row(
                    "SELECT coalesce(sum(input), 0), coalesce(sum(output), 0), coalesce(sum(cache_read), 0), \
                     coalesce(sum(cache_write), 0), coalesce(sum(cost_micros), 0), coalesce(sum(calls), 0), \
                     coalesce(sum(errors), 0) FROM usage WHERE day >= ?1",
                    [since],
                    |row| {
                        let usage = Usage {
                            input: row.get(0)?,
                            output: row.get(1)?,
                            cache_read: row.get(2)?,
                            cache_write: row.get(3)?,
                            cost_micros: row.get(4)?,
                        };
                        Ok((usage, row.get::<_, u64>(5)?, row.get::<_, u64>(6)?))
                    },
                )
            };
            let (day, calls_today, errors_today) = sum(today)?;
            let (month, _, _) = sum(today - day_of_month)?;
            Ok(UsageOverview { today: day, month, calls_today, errors_today })
        })
        .await
    }
}

/// Days since the first of the month of a day since the epoch, UTC.
fn days_into_month(day: i64) -> i64 {
    let seconds = day.saturating_mul(DAY);
    jiff::Timestamp::from_second(seconds)
        .map_or(0, |t| i64::from(t.to_zoned(jiff::tz::TimeZone::UTC).date().day()) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_month_begins_on_its_first_day() {
        assert_eq!(days_into_month(0), 0);
        assert_eq!(days_into_month(31), 0);
        assert_eq!(days_into_month(58), 27);
        assert_eq!(days_into_month(59), 0);
    }
}
