//! The commands on the lists of a database.

use std::borrow::Cow;

use agent_storage::{Database, Format, Value};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::arguments::ListCommand;
use crate::exit::{Exit, Failure};
use crate::output::Output;

impl ListCommand {
    pub(crate) async fn run(self, database: &Database, output: &Output) -> Result<Exit, Failure> {
        match self {
            Self::Append { key, value, id } => {
                let value = value.read().await?;
                let ack = match id {
                    Some(id) => database.append_with_id(key, value, id).await?,
                    None => database.append(key, value).await?,
                };
                if let Some(position) = ack.position {
                    output.line(position).await?;
                }
            }
            Self::Range { key, start, end } => {
                let mut lines = output.lines();
                for item in database.range(key, start, end).await? {
                    lines.push(&line(&item.value)).await?;
                }
                lines.finish().await?;
            }
            Self::Length { key } => output.line(database.length(key).await?).await?,
            Self::Trim { key, keep_last } => output.line(database.trim(key, keep_last).await?).await?,
        }
        Ok(Exit::Done)
    }
}

/// An item as one line.
///
/// Inside a JSON string a line break is always escaped (RFC 8259, section 7), so any other is white space between tokens, and
/// a space in its place leaves the JSON what it was.
fn line(value: &Value) -> Cow<'_, [u8]> {
    let bytes = value.as_bytes();
    let is_break = |byte: &u8| matches!(byte, b'\n' | b'\r');
    match value.format() {
        Format::Binary => Cow::Owned(format!("base64:{}", BASE64.encode(bytes)).into_bytes()),
        Format::Json if bytes.iter().any(is_break) => {
            Cow::Owned(bytes.iter().map(|byte| if is_break(byte) { b' ' } else { *byte }).collect())
        }
        Format::Json => Cow::Borrowed(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_item_is_one_line() {
        let json = Value::json("{\r\n\t\"a\": \"x\\ny\"\n}\n").unwrap();
        assert_eq!(*line(&json), *b"{  \t\"a\": \"x\\ny\" } ");
        let binary = Value::binary(&b"\n\xff"[..]).unwrap();
        assert_eq!(*line(&binary), *b"base64:Cv8=");
    }
}
