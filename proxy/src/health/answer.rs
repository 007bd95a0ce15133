//! Answer to the request of an HTTP check, as it arrives. Interim answers (1xx) are skipped with their headers (RFC 9110,
//! section 15.2); the final one is judged by its status line. Pure.

use httparse::{EMPTY_HEADER, Status};

use super::status_line::{self, StatusLine};

/// Longest head of an interim answer, in bytes.
const LONGEST_INTERIM: usize = 16 * 1024;

/// Most headers of an interim answer.
const MOST_HEADERS: usize = 64;

/// Switching Protocols: no other answer follows it.
const SWITCHING_PROTOCOLS: u16 = 101;

/// Result of parsing what was received so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AnswerState {
    /// The final status line is yet to come.
    Incomplete,
    /// The final status line, with this code.
    Code(u16),
    /// No answer of HTTP/1.0 or HTTP/1.1, whatever follows.
    NotHttp,
}

/// Beginning of an answer. Holds nothing when all came at once.
#[derive(Debug, Default)]
pub(super) struct Answer {
    /// The head that is incomplete.
    pieces: Vec<u8>,
}

impl Answer {
    /// Parses the next bytes.
    pub(super) fn receive(&mut self, received: &[u8]) -> AnswerState {
        if self.pieces.is_empty() {
            let (state, parsed) = parse(received);
            if state == AnswerState::Incomplete {
                self.pieces.extend_from_slice(received.get(parsed..).unwrap_or_default());
            }
            return state;
        }
        self.pieces.extend_from_slice(received);
        let (state, parsed) = parse(&self.pieces);
        self.pieces.drain(..parsed);
        state
    }
}

/// State after these bytes, and the length of the interim answers among them.
fn parse(bytes: &[u8]) -> (AnswerState, usize) {
    let mut skipped = 0;
    loop {
        let rest = bytes.get(skipped..).unwrap_or_default();
        let state = match status_line::parse(rest) {
            StatusLine::Incomplete => AnswerState::Incomplete,
            StatusLine::NotHttp => AnswerState::NotHttp,
            StatusLine::Code(code @ (SWITCHING_PROTOCOLS | 200..)) => AnswerState::Code(code),
            StatusLine::Code(_) => match interim_head(rest) {
                Ok(Status::Complete(length)) => {
                    skipped += length;
                    continue;
                }
                Ok(Status::Partial) if rest.len() < LONGEST_INTERIM => AnswerState::Incomplete,
                Ok(Status::Partial) | Err(_) => AnswerState::NotHttp,
            },
        };
        return (state, skipped);
    }
}

fn interim_head(bytes: &[u8]) -> httparse::Result<usize> {
    let mut headers = [EMPTY_HEADER; MOST_HEADERS];
    httparse::Response::new(&mut headers).parse(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const EARLY_HINTS: &str = "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n";

    fn state(answer: &str) -> AnswerState {
        Answer::default().receive(answer.as_bytes())
    }

    #[test]
    fn interim_answers_are_skipped_with_their_headers() {
        for interim in ["HTTP/1.1 100 Continue\r\n\r\n", "HTTP/1.1 102\n\n", EARLY_HINTS] {
            assert_eq!(state(interim), AnswerState::Incomplete, "{interim:?}");
            assert_eq!(
                state(&format!("{interim}HTTP/1.1 200 OK\r\n")),
                AnswerState::Code(200),
                "{interim:?}"
            );
            let several = format!("{interim}{EARLY_HINTS}{interim}HTTP/1.0 503 No\r\n\r\n");
            assert_eq!(state(&several), AnswerState::Code(503), "{interim:?}");
            assert_eq!(state(&format!("{interim}SSH-2.0")), AnswerState::NotHttp, "{interim:?}");
        }
        assert_eq!(
            state("HTTP/1.1 101 Switching Protocols\r\n"),
            AnswerState::Code(101),
            "nothing follows it"
        );
    }

    #[test]
    fn a_broken_or_endless_interim_answer_is_given_up() {
        assert_eq!(state("HTTP/1.1 103 Early Hints\r\nno header\r\n"), AnswerState::NotHttp);
        let many = "A: b\r\n".repeat(MOST_HEADERS + 1);
        assert_eq!(state(&format!("HTTP/1.1 103 E\r\n{many}\r\n")), AnswerState::NotHttp);
        let mut answer = Answer::default();
        assert_eq!(answer.receive(b"HTTP/1.1 103 E\r\nLink: "), AnswerState::Incomplete);
        let given_up = (1..).find(|_| answer.receive(&[b'a'; 1024]) == AnswerState::NotHttp);
        assert_eq!(given_up, Some(LONGEST_INTERIM / 1024));
    }

    #[test]
    fn interim_answers_without_end_take_no_memory() {
        let mut answer = Answer::default();
        for _ in 0..1000 {
            assert_eq!(answer.receive(EARLY_HINTS.as_bytes()), AnswerState::Incomplete);
            assert!(answer.pieces.is_empty());
        }
    }

    proptest! {
        #[test]
        fn pieces_say_what_the_whole_says(
            interim in prop::collection::vec("HTTP/1\\.1 1[0-9]{2} ?[a-z]{0,3}\r\n(A: b\r\n){0,3}\r\n", 0..3),
            last in "(HTTP/1\\.1 [2-5][0-9]{2}|HTTP|x) ?[ -~]{0,9}(\r\n)?",
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
        ) {
            let whole = interim.concat() + &last;
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(whole.len() + 1)).collect();
            cuts.extend([0, whole.len()]);
            cuts.sort_unstable();
            let mut answer = Answer::default();
            let mut found = AnswerState::Incomplete;
            for pair in cuts.windows(2).filter(|pair| pair[0] < pair[1]) {
                found = answer.receive(&whole.as_bytes()[pair[0]..pair[1]]);
                if found != AnswerState::Incomplete {
                    break;
                }
            }
            prop_assert_eq!(found, state(&whole));
        }

        #[test]
        fn no_bytes_make_it_panic(pieces: Vec<Vec<u8>>, interim: bool) {
            let mut answer = Answer::default();
            if interim {
                answer.receive(b"HTTP/1.1 100 C\r\n");
            }
            for piece in pieces {
                answer.receive(&piece);
            }
        }
    }
}
