//! Who is answered. Deny is the default: with no owner and no code nobody is.

use std::collections::BTreeSet;

use super::UserId;

/// Who is answered at this moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Access {
    /// Owners by the settings and by pairing.
    pub owners: BTreeSet<UserId>,
    /// The one-time code that `skep pair` shows, while it is good.
    pub pairing: Option<String>,
}

/// What to do with somebody's message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Admission {
    /// An owner.
    Owner,
    /// A stranger whose message is exactly the pairing code.
    Pairs,
    /// Anybody else: silence.
    Stranger,
}

impl Access {
    /// Judges a message of `user`. Only a private message can pair.
    pub fn judge(&self, user: Option<UserId>, private: bool, text: &str) -> Admission {
        let Some(user) = user else { return Admission::Stranger };
        if self.owners.contains(&user) {
            return Admission::Owner;
        }
        let given = text.trim();
        let given = given.strip_prefix("/start").map_or(given, str::trim_start);
        match &self.pairing {
            Some(code) if private && !code.is_empty() && given.eq_ignore_ascii_case(code) => Admission::Pairs,
            _ => Admission::Stranger,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_owners_and_the_exact_code_in_private_are_admitted() {
        let access = Access { owners: [UserId(1)].into(), pairing: Some("K7QF-2M9X".to_owned()) };
        let cases = [
            (Some(UserId(1)), true, "anything", Admission::Owner),
            (Some(UserId(1)), false, "anything", Admission::Owner),
            (Some(UserId(2)), true, "anything", Admission::Stranger),
            (Some(UserId(2)), true, " k7qf-2m9x ", Admission::Pairs),
            (Some(UserId(2)), true, "/start K7QF-2M9X", Admission::Pairs),
            (Some(UserId(2)), false, "K7QF-2M9X", Admission::Stranger),
            (Some(UserId(2)), true, "K7QF-2M9X please", Admission::Stranger),
            (None, true, "K7QF-2M9X", Admission::Stranger),
        ];
        for (user, private, text, expected) in cases {
            assert_eq!(access.judge(user, private, text), expected, "{user:?} {private} {text}");
        }
        let nobody = Access::default();
        assert_eq!(nobody.judge(Some(UserId(1)), true, ""), Admission::Stranger);
        let empty = Access { pairing: Some(String::new()), ..Access::default() };
        assert_eq!(
            empty.judge(Some(UserId(1)), true, ""),
            Admission::Stranger,
            "an empty code admits nobody"
        );
    }
}
