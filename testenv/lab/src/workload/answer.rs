//! The one line that a server answers.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use crate::error::LabError;

/// Name of a server with the addresses that it saw: on the wire `NAME CLIENT_IP:PORT LOCAL_IP` and a line feed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Answer {
    /// The server's name, without spaces.
    pub server: String,
    /// The client's address as the server saw it. Never assert the port: OVS's conntrack may rewrite it.
    pub client: SocketAddr,
    /// The server's own address of this connection.
    pub local: IpAddr,
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.server, self.client, self.local)
    }
}

impl FromStr for Answer {
    type Err = LabError;

    fn from_str(line: &str) -> Result<Answer, LabError> {
        let wrong = |reason: &str| LabError::invalid("answer", line, reason);
        let words: Vec<&str> = line.split_whitespace().collect();
        let [server, client, local] = words.as_slice() else {
            return Err(wrong("not of three words"));
        };
        let client = client.parse().map_err(|_| wrong("no client address and port"))?;
        let local = local.parse().map_err(|_| wrong("no local address"))?;
        Ok(Answer { server: (*server).to_owned(), client, local })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_as_it_is_written() {
        for line in ["b1 10.0.0.1:4000 10.0.0.2", "b1 [fd00::1]:4000 fd00::2"] {
            assert_eq!(line.parse::<Answer>().unwrap().to_string(), line);
        }
        for bad in ["", "b1", "b1 10.0.0.1 10.0.0.2", "b1 10.0.0.1:1 x", "b1 10.0.0.1:1 10.0.0.2 more"] {
            assert!(bad.parse::<Answer>().is_err(), "{bad}");
        }
    }
}
