-- Format 1. Times are seconds since the epoch.
--
-- Every commit writes each page it touches to flash once more, so no index contains a column that changes on the way of a
-- message: the partial indexes ask whether a row is over, not in which state it is.

-- What came in. A Telegram update is a row before its offset is confirmed; `raw` is the update as Telegram sent it
-- (NULL when the sender is a stranger: nothing beyond the id is kept), `content` is what a terminal submitted. Both are
-- NULL once the row is done: what was said is kept once, as the prompt of its run. What remains is some 30 bytes for
-- three days, so looking for new rows needs no index. `print` is a hash of all of `raw` but its update id.
CREATE TABLE inbox (
    id          INTEGER PRIMARY KEY,
    update_id   INTEGER,
    raw         TEXT,
    content     TEXT,
    print       INTEGER,
    received_at INTEGER NOT NULL,
    state       TEXT NOT NULL DEFAULT 'new' CHECK (state IN ('new', 'done'))
) STRICT;
CREATE UNIQUE INDEX inbox_update ON inbox (update_id) WHERE update_id IS NOT NULL;

CREATE TABLE conversations (
    id         INTEGER PRIMARY KEY,
    place      TEXT NOT NULL,
    agent      TEXT NOT NULL,
    session    TEXT NOT NULL,
    begun      INTEGER NOT NULL DEFAULT 0,  -- 1: Claude has a transcript of this session, so it is resumed
    updated_at INTEGER NOT NULL,
    UNIQUE (place, agent)
) STRICT;

-- The agent a place talks to when none is named.
CREATE TABLE places (
    place TEXT PRIMARY KEY,
    agent TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE runs (
    id           INTEGER PRIMARY KEY,
    conversation INTEGER NOT NULL REFERENCES conversations (id),
    inbox        INTEGER,
    prompt       TEXT NOT NULL,
    reply_to     INTEGER,
    state        TEXT NOT NULL CHECK (state IN ('queued', 'running', 'finished', 'failed', 'cancelled')),
    attempts     INTEGER NOT NULL DEFAULT 0,
    created_at   INTEGER NOT NULL,
    ended_at     INTEGER,  -- NULL while queued or running
    answer       TEXT,
    error        TEXT,
    input        INTEGER NOT NULL DEFAULT 0,
    output       INTEGER NOT NULL DEFAULT 0,
    cache_read   INTEGER NOT NULL DEFAULT 0,
    cache_write  INTEGER NOT NULL DEFAULT 0,
    cost_micros  INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX runs_open ON runs (id) WHERE ended_at IS NULL;

-- What must reach a Telegram chat. 'open': an answer that still grows, its first message may exist; 'ready': final,
-- to be sent or edited in; 'sending': one call is under way whose answer we do not have; 'done': confirmed;
-- 'dead': Telegram refused it for good. `messages` lists the confirmed message ids as ',12,13,'.
CREATE TABLE outbox (
    id         INTEGER PRIMARY KEY,
    chat       INTEGER NOT NULL,
    thread     INTEGER,
    kind       TEXT NOT NULL CHECK (kind IN ('answer', 'notice')),
    run        INTEGER,
    agent      TEXT,
    reply_to   INTEGER,
    text       TEXT,
    buttons    TEXT,
    messages   TEXT NOT NULL DEFAULT ',',
    state      TEXT NOT NULL CHECK (state IN ('open', 'ready', 'sending', 'done', 'dead')),
    repeated   INTEGER NOT NULL DEFAULT 0,   -- 1: an earlier send's answer was lost, the text says so
    created_at INTEGER NOT NULL,
    settled_at INTEGER                       -- NULL until done or dead
) STRICT;
CREATE INDEX outbox_open ON outbox (id) WHERE settled_at IS NULL;

CREATE TABLE usage (
    day         INTEGER NOT NULL,  -- days since the epoch, UTC
    agent       TEXT NOT NULL,
    model       TEXT NOT NULL,
    calls       INTEGER NOT NULL,
    errors      INTEGER NOT NULL,
    input       INTEGER NOT NULL,
    output      INTEGER NOT NULL,
    cache_read  INTEGER NOT NULL,
    cache_write INTEGER NOT NULL,
    cost_micros INTEGER NOT NULL,
    PRIMARY KEY (day, agent, model)
) STRICT, WITHOUT ROWID;

-- Telegram users that paired by a code, beside those the settings name.
CREATE TABLE owners (
    user     INTEGER PRIMARY KEY,
    added_at INTEGER NOT NULL
) STRICT;

-- The host uid slot of each agent, kept for ever: files of a removed agent never become another's.
CREATE TABLE slots (
    agent TEXT PRIMARY KEY,
    slot  INTEGER NOT NULL UNIQUE
) STRICT, WITHOUT ROWID;
