//! CRC-32 (ISO 3309) of a stored JSON object, in its last field. One without it was written before there were any, and an
//! earlier release ignores it.

const FIELD: &[u8] = br#","crc32":""#;
const DIGITS: usize = 8;
const END: &[u8] = br#""}"#;

/// Adds the field to a JSON object.
pub(crate) fn add(mut object: Vec<u8>) -> Vec<u8> {
    let sum = format!("{:08x}", crc32fast::hash(&object));
    if object.len() > 2 && object.pop_if(|last| *last == b'}').is_some() {
        object.reserve_exact(FIELD.len() + DIGITS + END.len());
        [FIELD, sum.as_bytes(), END].into_iter().for_each(|part| object.extend_from_slice(part));
    }
    object
}

/// False if the field has another sum than the rest.
pub(crate) fn holds(bytes: &[u8]) -> bool {
    let rest =
        bytes.strip_suffix(END).and_then(|rest| rest.split_at_checked(rest.len().checked_sub(DIGITS)?));
    let Some((body, sum)) = rest.and_then(|(rest, sum)| Some((rest.strip_suffix(FIELD)?, sum))) else {
        return true;
    };
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(body);
    hasher.update(b"}");
    format!("{:08x}", hasher.finalize()).as_bytes() == sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_damaged_by_any_flipped_bit_and_whole_without_a_sum() {
        let stored = add(br#"{"version":1,"addresses":["10.0.0.9/24"]}"#.to_vec());
        assert!(holds(&stored) && serde_json::from_slice::<serde_json::Value>(&stored).is_ok());
        assert!(holds(br#"{"version":1}"#));
        let body = stored.len() - FIELD.len() - DIGITS - END.len();
        for (byte, bit) in (0..body).flat_map(|byte| (0..8).map(move |bit| (byte, bit))) {
            let mut damaged = stored.clone();
            damaged[byte] ^= 1 << bit;
            assert!(!holds(&damaged), "{}", String::from_utf8_lossy(&damaged));
        }
        assert_eq!(add(b"{}".to_vec()), b"{}", "an empty object has no place for it");
    }
}
