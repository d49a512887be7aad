//! The scripts that Redis runs, each in one atomic step.

use std::sync::OnceLock;

use redis::Cmd;
use sha1::{Digest, Sha1};

use crate::key::Key;
use crate::revision::Revision;

/// Reads a value and the moment it expires at, or -1; nothing where there is no value. Before version 7 the server does
/// not tell that moment, but the time that is left.
pub(super) static READ: Script = Script::new(
    "local stored = redis.call('GET', KEYS[1])
if not stored then return false end
local at = redis.pcall('PEXPIRETIME', KEYS[1])
if type(at) == 'table' then
  at = redis.call('PTTL', KEYS[1])
  if at >= 0 then
    local now = redis.call('TIME')
    at = at + now[1] * 1000 + math.floor(now[2] / 1000)
  end
end
return {stored, at}",
);

/// `value, ttl or ''`: stores a value and answers whether there was one; refuses to replace another type.
pub(super) static PUT: Script = Script::new(
    "redis.call('STRLEN', KEYS[1])
local existed = redis.call('EXISTS', KEYS[1])
if ARGV[2] == '' then redis.call('SET', KEYS[1], ARGV[1])
else redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2]) end
return existed",
);

/// What stands in the place of a TTL where the entry keeps its own.
pub(super) const KEEP_TTL: &str = "keep";

/// `digest, value, ttl or ''`: stores a value over that of the digest; answers 1, or 0 where there is no such value.
pub(super) static UPDATE: Script = Script::new(
    "local stored = redis.call('GET', KEYS[1])
if not stored or redis.sha1hex(stored) ~= ARGV[1] then return 0 end
if ARGV[3] == '' then redis.call('SET', KEYS[1], ARGV[2])
elseif ARGV[3] == 'keep' then redis.call('SET', KEYS[1], ARGV[2], 'KEEPTTL')
else redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3]) end
return 1",
);

/// `digest`: removes the value of the digest; answers 1, or 0 where there is no such value.
pub(super) static DELETE: Script = Script::new(
    "local stored = redis.call('GET', KEYS[1])
if not stored or redis.sha1hex(stored) ~= ARGV[1] then return 0 end
return redis.call('UNLINK', KEYS[1])",
);

/// `ttl or ''`: sets or clears the TTL of a value; answers its digest, or nothing where there is no value.
pub(super) static TOUCH: Script = Script::new(
    "local stored = redis.call('GET', KEYS[1])
if not stored then return false end
if ARGV[1] == '' then redis.call('PERSIST', KEYS[1])
else redis.call('PEXPIRE', KEYS[1], ARGV[1]) end
return redis.sha1hex(stored)",
);

/// `by, ttl`: adds, with a TTL if it creates. The sum is read back as text: a number of Lua has 53 bits.
pub(super) static INCREMENT: Script = Script::new(
    "local existed = redis.call('EXISTS', KEYS[1])
redis.call('INCRBY', KEYS[1], ARGV[1])
if existed == 0 then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return redis.call('GET', KEYS[1])",
);

/// A script over one key.
#[derive(Debug)]
pub(super) struct Script {
    text: &'static str,
    digest: OnceLock<String>,
}

impl Script {
    const fn new(text: &'static str) -> Self {
        Self { text, digest: OnceLock::new() }
    }

    fn digest(&self) -> &str {
        self.digest.get_or_init(|| Revision::from_digest(Sha1::digest(self.text).into()).to_string())
    }
}

/// How the scripts of one pipeline are called.
///
/// A server forgets its scripts when it restarts or is told to. Where commands stand in a row, calling one again later
/// would change their order; so there the first call carries the whole text, which teaches it to the server anew.
#[derive(Debug)]
pub(super) struct Calls {
    taught: Taught,
}

#[derive(Debug)]
enum Taught {
    All,
    Only(Vec<&'static str>),
}

impl Calls {
    /// Calls by digest, for a single command that can be sent again where the server does not know the script.
    pub(super) const fn by_digest() -> Self {
        Self { taught: Taught::All }
    }

    /// Calls that the server understands whatever it knows.
    pub(super) const fn in_full() -> Self {
        Self { taught: Taught::Only(Vec::new()) }
    }

    /// Begins a call of a script over a key; its further arguments are the caller's to add.
    pub(super) fn call(&mut self, script: &'static Script, key: &Key) -> Cmd {
        let known = match &mut self.taught {
            Taught::All => true,
            Taught::Only(texts) if texts.contains(&script.text) => true,
            Taught::Only(texts) => {
                texts.push(script.text);
                false
            }
        };
        let mut command = if known { redis::cmd("EVALSHA") } else { redis::cmd("EVAL") };
        command.arg(if known { script.digest() } else { script.text }).arg(1).arg(key.as_bytes());
        command
    }
}
