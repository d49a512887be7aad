//! Values as they come in: from an argument, a file or standard input.

use std::path::Path;

use agent_storage::{ErrorKind, Value};
use tokio::fs::File;
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::arguments::ValueSource;
use crate::exit::Failure;

impl ValueSource {
    /// Reads the value. What is too large is refused before it is read whole.
    pub(crate) async fn read(self) -> Result<Value, Failure> {
        let Self { value, file, binary } = self;
        let bytes = match (value, file) {
            (_, Some(path)) => read_file(&path).await?,
            (Some(dash), None) if dash == "-" => read_all(tokio::io::stdin(), "standard input").await?,
            (Some(text), None) => text.into_bytes(),
            (None, None) => return Err(Failure::Input("a value is missing".to_owned())),
        };
        if binary {
            return Ok(Value::binary(bytes)?);
        }
        Value::json(bytes).map_err(|error| match error.kind() {
            ErrorKind::InvalidValue => Failure::Input(format!(
                "{}\nhint: text is JSON only in quotes, as '\"hello\"'; --binary stores any bytes as they are",
                error.message()
            )),
            _ => error.into(),
        })
    }
}

async fn read_file(path: &Path) -> Result<Vec<u8>, Failure> {
    let shown = path.display().to_string();
    let unreadable = |error| Failure::Input(format!("{shown}: {error}"));
    let file = File::open(path).await.map_err(unreadable)?;
    let length = file.metadata().await.map_err(unreadable)?.len();
    if length > limit() {
        return Err(too_large(&shown));
    }
    read_all(file, &shown).await
}

/// Reads to the end, but not past the limit: a pipe or a device does not say how much will come.
async fn read_all(source: impl AsyncRead + Unpin, name: &str) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let read = source.take(limit() + 1).read_to_end(&mut bytes).await;
    read.map_err(|error| Failure::Input(format!("{name}: {error}")))?;
    if bytes.len() > Value::MAX_BYTES { Err(too_large(name)) } else { Ok(bytes) }
}

const fn limit() -> u64 {
    Value::MAX_BYTES as u64
}

fn too_large(name: &str) -> Failure {
    Failure::Input(format!("{name}: a value may have at most {} bytes", Value::MAX_BYTES))
}
