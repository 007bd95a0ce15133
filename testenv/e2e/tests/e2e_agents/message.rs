//! Messages of DNS (RFC 1035): queries for a TXT record, and answers that say who gives them.

/// Length of the header.
const HEADER: usize = 12;
/// A pointer to the name in the question.
const NAME_OF_QUESTION: [u8; 2] = [0xc0, HEADER as u8];
const TXT: [u8; 2] = [0, 16];
const INTERNET: [u8; 2] = [0, 1];

/// A query for the TXT record of a name, of labels that are not longer than 63 bytes.
pub(crate) fn query(id: u16, name: &str) -> Vec<u8> {
    let mut message = id.to_be_bytes().to_vec();
    // Recursion desired; one question.
    message.extend([0x01, 0x00, 0, 1, 0, 0, 0, 0, 0, 0]);
    message.extend(question(name));
    message
}

fn question(name: &str) -> Vec<u8> {
    let mut question = Vec::new();
    for label in name.split('.') {
        question.push(u8::try_from(label.len()).unwrap());
        question.extend(label.bytes());
    }
    question.push(0);
    question.extend(TXT);
    question.extend(INTERNET);
    question
}

/// The answer of a server to a query: its name as a text. None: it is no query.
pub(crate) fn respond(query: &[u8], server: &str) -> Option<Vec<u8>> {
    let (header, question) = query.split_at_checked(HEADER)?;
    let is_query = header[2] & 0x80 == 0 && header[4..6] == [0, 1];
    if !is_query || !question.ends_with(&INTERNET) {
        return None;
    }
    let mut message = header[..2].to_vec();
    // An answer with authority; one question, one record.
    message.extend([0x85, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]);
    message.extend(question);
    message.extend(NAME_OF_QUESTION);
    message.extend(TXT);
    message.extend(INTERNET);
    // Not to be kept.
    message.extend([0; 4]);
    let length = u8::try_from(server.len()).ok()?;
    message.extend((u16::from(length) + 1).to_be_bytes());
    message.push(length);
    message.extend(server.bytes());
    Some(message)
}

/// The server that an answer names, if it answers this query.
pub(crate) fn answer(message: &[u8], id: u16, name: &str) -> Option<String> {
    let server = message.len().checked_sub(HEADER + question(name).len() + 13)?;
    let server = String::from_utf8(message[message.len() - server..].to_vec()).ok()?;
    (respond(&query(id, name), &server)? == message).then_some(server)
}

#[test]
fn an_answer_is_that_of_its_query_alone() {
    let message = respond(&query(7, "a.test"), "b1").unwrap();
    assert_eq!(answer(&message, 7, "a.test").as_deref(), Some("b1"));
    assert_eq!([answer(&message, 8, "a.test"), answer(&message, 7, "b.test")], [None, None]);
    assert_eq!(answer(&message[..20], 7, "a.test"), None);
    assert_eq!(respond(&message, "b1"), None);
}
