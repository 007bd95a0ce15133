//! Texts of errors.

/// Returns an error with its causes, separated by colons. Some libraries' own text says only that it is an error, and others
/// repeat their cause, which then stands once.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    causes_after(error.to_string(), error)
}

/// Appends the causes of an error to a text that stands for the error itself.
#[must_use]
pub fn causes_after(text: String, error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |error| error.source());
    causes
        .map(ToString::to_string)
        .fold(text, |text, cause| if text.ends_with(&cause) { text } else { format!("{text}: {cause}") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Layer {
        text: &'static str,
        source: Option<Box<Layer>>,
    }

    fn layers(texts: &[&'static str]) -> Layer {
        let (text, rest) = texts.split_first().unwrap();
        Layer { text, source: (!rest.is_empty()).then(|| Box::new(layers(rest))) }
    }

    #[test]
    fn causes_follow_and_a_repeated_one_stands_once() {
        assert_eq!(chain(&layers(&["transport error", "refused"])), "transport error: refused");
        assert_eq!(chain(&layers(&["cannot connect: refused", "refused"])), "cannot connect: refused");
        assert_eq!(causes_after("stream".to_owned(), &layers(&["x", "y"])), "stream: y");
    }
}
