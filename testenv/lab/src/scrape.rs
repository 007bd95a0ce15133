//! Reading one value of a process' metrics.

use anyhow::Result;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// The value of one line of `/metrics`, named with its labels; 0 where there is no such line.
///
/// # Errors
/// Whoever is at the other end does not answer.
pub async fn metric(stream: TcpStream, line: &str) -> Result<f64> {
    Ok(self::line(stream, line).await?.unwrap_or(0.0))
}

/// The same; `None` where there is no such line.
///
/// # Errors
/// As [`metric`].
pub async fn line(mut stream: TcpStream, line: &str) -> Result<Option<f64>> {
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: fiberlb\r\nConnection: close\r\n\r\n").await?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await?;
    let value = text.lines().find_map(|found| found.strip_prefix(line)?.strip_prefix(' '));
    Ok(value.map(|value| value.trim().parse()).transpose()?)
}
