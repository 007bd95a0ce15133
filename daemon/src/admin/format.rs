//! Formats of a scrape, and the one that a client accepts.

/// Content type of OpenMetrics' text.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// Content type of Prometheus' older text.
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Format of a scrape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ScrapeFormat {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// Prometheus' text format 0.0.4, which everything reads.
    Text,
}

impl ScrapeFormat {
    /// Format for a client with these `Accept` headers: OpenMetrics if it names that and prefers nothing older, else text.
    pub(super) fn accepted<'a>(headers: impl Iterator<Item = &'a str>) -> Self {
        let (mut open_metrics, mut text) = (0.0, 0.0);
        for range in headers.flat_map(|header| header.split(',')) {
            let (media, quality) = media_range(range);
            let best: &mut f32 = match media.as_str() {
                "application/openmetrics-text" => &mut open_metrics,
                "text/plain" => &mut text,
                _ => continue,
            };
            *best = best.max(quality);
        }
        if open_metrics > 0.0 && open_metrics >= text { Self::OpenMetrics } else { Self::Text }
    }

    pub(super) fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => OPEN_METRICS,
            Self::Text => TEXT,
        }
    }

    /// Renders a scrape that is in OpenMetrics' format.
    pub(super) fn render(self, scrape: String) -> String {
        match self {
            Self::OpenMetrics => scrape,
            Self::Text => text(&scrape),
        }
    }
}

/// Media type in lower case and quality of a range such as `text/plain;version=0.0.4;q=0.5`.
fn media_range(range: &str) -> (String, f32) {
    let mut parts = range.split(';').map(str::trim);
    let media = parts.next().unwrap_or_default().to_ascii_lowercase();
    let quality = parts.filter_map(|part| part.strip_prefix("q=")).find_map(|text| text.parse().ok());
    (media, quality.unwrap_or(1.0))
}

/// Scrape in text format 0.0.4. A counter's family has the name of its samples there; there are neither units nor an end.
fn text(scrape: &str) -> String {
    let counters: std::collections::HashSet<&str> =
        scrape.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter")).collect();
    let mut text = String::with_capacity(scrape.len());
    for line in scrape.lines().filter(|line| !line.starts_with("# UNIT ") && *line != "# EOF") {
        let described = line.strip_prefix("# ").and_then(|rest| {
            let (keyword, rest) = rest.split_once(' ')?;
            let (name, rest) = rest.split_once(' ')?;
            counters.contains(name).then_some((keyword, name, rest))
        });
        match described {
            Some((keyword, name, rest)) => text.extend(["# ", keyword, " ", name, "_total ", rest]),
            None => text.push_str(line),
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_metrics_is_for_those_who_name_it() {
        let prometheus = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
            application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;q=0.4,\
            text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        for (headers, expected) in [
            (&[prometheus][..], ScrapeFormat::OpenMetrics),
            (&["Application/OpenMetrics-Text"], ScrapeFormat::OpenMetrics),
            (&["text/plain", "application/openmetrics-text"], ScrapeFormat::OpenMetrics),
            (&["text/plain;q=0.9, application/openmetrics-text;q=0.1"], ScrapeFormat::Text),
            (&["application/openmetrics-text;q=0"], ScrapeFormat::Text),
            (&["*/*"], ScrapeFormat::Text),
            (&["text/html, q=x;;,"], ScrapeFormat::Text),
            (&[], ScrapeFormat::Text),
        ] {
            assert_eq!(ScrapeFormat::accepted(headers.iter().copied()), expected, "{headers:?}");
        }
    }

    #[test]
    fn older_text_names_counters_like_their_samples_and_has_no_units() {
        let scrape = "\
# HELP p_writes Writes with a counter.
# TYPE p_writes counter
p_writes_total{code=\"# TYPE x counter\"} 1
# HELP p_took_seconds Time.
# TYPE p_took_seconds histogram
# UNIT p_took_seconds seconds
p_took_seconds_sum 0.5
p_took_seconds_bucket{le=\"+Inf\"} 1
# HELP p_open Open.
# TYPE p_open gauge
p_open 3
# EOF
";
        let expected = "\
# HELP p_writes_total Writes with a counter.
# TYPE p_writes_total counter
p_writes_total{code=\"# TYPE x counter\"} 1
# HELP p_took_seconds Time.
# TYPE p_took_seconds histogram
p_took_seconds_sum 0.5
p_took_seconds_bucket{le=\"+Inf\"} 1
# HELP p_open Open.
# TYPE p_open gauge
p_open 3
";
        assert_eq!(text(scrape), expected);
    }
}
