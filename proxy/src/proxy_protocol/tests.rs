use proptest::prelude::*;

use super::*;

fn socket(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn tcp(source: &str, destination: &str) -> Subject {
    Subject::Tcp(Endpoints { source: socket(source), destination: socket(destination) })
}

/// The header of whole bytes, all of which are its own.
fn read(bytes: &[u8]) -> Result<Header, HeaderError> {
    match parse(bytes)? {
        HeaderProgress::Complete { header, length } if length == bytes.len() => Ok(header),
        progress => panic!("{progress:?} of {} bytes", bytes.len()),
    }
}

const V4: [u8; 28] = *b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0C\xC0\0\x02\x01\xC0\0\x02\x02\x9C\x40\0\x50";

fn v4_with(tlvs: &[u8]) -> Vec<u8> {
    let mut bytes = [&V4[..], tlvs].concat();
    bytes[14..16].copy_from_slice(&u16::try_from(12 + tlvs.len()).unwrap().to_be_bytes());
    bytes
}

#[test]
fn a_header_of_version_1_is_a_line() {
    let v4 = tcp("192.0.2.1:40000", "192.0.2.2:80");
    let line = b"PROXY TCP4 192.0.2.1 192.0.2.2 40000 80\r\n";
    assert_eq!(encode(Version::V1, &v4.into()), line);
    assert_eq!(read(line).unwrap(), v4.into());
    let v6 = tcp("[2001:db8::1]:0", "[::]:65535");
    let line = b"PROXY TCP6 2001:db8::1 :: 0 65535\r\n";
    assert_eq!(encode(Version::V1, &v6.into()), line);
    assert_eq!(read(line).unwrap(), v6.into());
    for unknown in [Subject::Unknown, Subject::Local] {
        assert_eq!(encode(Version::V1, &unknown.into()), b"PROXY UNKNOWN\r\n");
    }
    assert_eq!(read(b"PROXY UNKNOWN\r\n").unwrap(), Subject::Unknown.into());
    let full = format!("PROXY TCP6 {0} {0} 65535 65535\r\n", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff");
    assert_eq!((full.len(), read(full.as_bytes()).is_ok()), (104, true));
    let ignored = format!("PROXY UNKNOWN {}\r\n", "\r".repeat(MAX_V1 - 16));
    assert_eq!(read(ignored.as_bytes()).unwrap(), Subject::Unknown.into());
}

#[test]
fn endpoints_of_two_families_are_ipv6_and_mapped_ones_ipv4() {
    let mixed = Header::from(tcp("192.0.2.1:1", "[2001:db8::2]:2"));
    assert_eq!(encode(Version::V1, &mixed), b"PROXY TCP6 ::ffff:c000:201 2001:db8::2 1 2\r\n");
    let HeaderProgress::Complete { header, .. } = parse(&encode(Version::V2, &mixed)).unwrap() else {
        panic!()
    };
    assert_eq!(header.subject, tcp("[::ffff:192.0.2.1]:1", "[2001:db8::2]:2"));
    let mapped = Header::from(tcp("[::ffff:192.0.2.1]:1", "192.0.2.2:2"));
    assert_eq!(encode(Version::V1, &mapped), b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n");
}

#[test]
fn what_is_no_line_of_version_1_is_refused() {
    for bad in [
        "PROXY TCP4 192.0.2.1 192.0.2.2 40000  80\r\n",
        "PROXY TCP4  192.0.2.1 192.0.2.2 40000 80\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 40000 80 \r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 40000\r\n",
        "PROXY TCP4 192.0.2.01 192.0.2.2 40000 80\r\n",
        "PROXY TCP4 192.0.2 192.0.2.2 40000 80\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 40000 080\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 +4000 80\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 65536 80\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 40000 80\n\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 40000 80\r\r\n",
        "PROXY TCP4 2001:db8::1 2001:db8::2 40000 80\r\n",
        "PROXY TCP6 192.0.2.1 192.0.2.2 40000 80\r\n",
        "PROXY TCP6 fe80::1%1 ::1 40000 80\r\n",
        "PROXY TCP6 1:2:3:4:5:6:7 ::1 40000 80\r\n",
        "PROXY TCP4 \u{e9} 192.0.2.2 40000 80\r\n",
        "PROXY UNKNOWNS\r\n",
        "PROXY UDP4 ",
        "PROXY tcp4 ",
        "PROXY  ",
    ] {
        assert!(matches!(parse(bad.as_bytes()), Err(HeaderError::Malformed(_))), "{bad:?}");
    }
    for bad in ["GET / HTTP/1.1\r\n", "PROXX", "PROXY\t", "proxy ", "\0", "PUT ", "\x16\x03\x01", "\n"] {
        assert_eq!(parse(bad.as_bytes()), Err(HeaderError::Missing), "{bad:?}");
    }
    for (start, most) in [("PROXY TCP4 ", 56), ("PROXY TCP6 ", 104), ("PROXY UNKNOWN ", 107)] {
        let line = |length: usize| format!("{start}{}", "1".repeat(length - start.len()));
        assert_eq!(parse(line(most - 2).as_bytes()), Ok(HeaderProgress::Incomplete { needs: most }));
        assert_eq!(parse(line(most - 1).as_bytes()), Err(HeaderError::TooLong), "no room for its end");
        assert_eq!(parse((line(most - 1) + "\r\n").as_bytes()), Err(HeaderError::TooLong));
    }
}

#[test]
fn a_header_of_version_2_is_read_with_its_tlvs() {
    let subject = tcp("192.0.2.1:40000", "192.0.2.2:80");
    assert_eq!(read(&V4).unwrap(), subject.into());
    let header = read(&v4_with(b"\x04\0\x02xx\x02\0\x04shop\xEA\0\x01\x01\x04\0\0")).unwrap();
    assert_eq!(header.subject, subject);
    let tlvs: Vec<(u8, &[u8])> = header.tlvs.iter().collect();
    assert_eq!(tlvs, [(tlv_type::AUTHORITY, &b"shop"[..]), (0xEA, &[1][..])], "no padding");
    assert_eq!(header.tlvs.find(tlv_type::AUTHORITY), Some(&b"shop"[..]));

    let local = b"\r\n\r\n\0\r\nQUIT\n\x20\xFF\0\x03abc";
    assert_eq!(read(local).unwrap(), Subject::Local.into(), "the rest is discarded");
    assert_eq!(encode(Version::V2, &Subject::Local.into()), b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0");
    for family in [0x00, 0x01, 0x10, 0x20, 0x30] {
        let mut bytes = V4;
        bytes[13] = family;
        assert_eq!(read(&bytes).unwrap(), Subject::Unknown.into(), "{family:#x}");
    }
    let mut udp = v4_with(b"\x02\0\x01a");
    udp[13] = 0x12;
    let header = read(&udp).unwrap();
    assert_eq!((header.subject, header.tlvs.find(2)), (Subject::Unknown, Some(&b"a"[..])));
    let unix = [&b"\r\n\r\n\0\r\nQUIT\n\x21\x31\0\xDC"[..], &[0; 216], b"\x02\0\x01a"].concat();
    assert_eq!(read(&unix).unwrap().tlvs.find(2), Some(&b"a"[..]));
}

#[test]
fn a_checksum_is_verified_where_it_is() {
    let sent = encode(Version::V2, &tcp("192.0.2.1:40000", "192.0.2.2:80").into());
    assert_eq!(sent[16..28], V4[16..28]);
    assert_eq!(sent[28..31], [tlv_type::CRC32C, 0, 4]);
    assert!(read(&sent).is_ok());
    for at in 16..sent.len() {
        if (28..31).contains(&at) {
            continue;
        }
        let mut broken = sent.clone();
        broken[at] ^= 1;
        assert_eq!(read(&broken), Err(HeaderError::Checksum), "byte {at}");
    }
    let twice = v4_with(b"\x03\0\x04aaaa\x03\0\x04aaaa");
    assert!(matches!(read(&twice), Err(HeaderError::Malformed(_))));
    assert!(matches!(read(&v4_with(b"\x03\0\x03aaa")), Err(HeaderError::Malformed(_))));
}

#[test]
fn what_breaks_version_2_is_refused() {
    let changed = |at: usize, byte: u8| {
        let mut bytes = V4;
        bytes[at] = byte;
        parse(&bytes)
    };
    assert_eq!(changed(11, b'\r'), Err(HeaderError::Missing));
    for (at, byte) in
        [(12, 0x11), (12, 0x22), (12, 0x31), (13, 0x41), (13, 0x13), (15, 11), (13, 0x21), (13, 0x31)]
    {
        assert!(matches!(changed(at, byte), Err(HeaderError::Malformed(_))), "{at}: {byte:#x}");
    }
    assert!(changed(14, 0x10).is_err_and(|error| error == HeaderError::TooLong));
    assert_eq!(changed(14, 0x0F), Ok(HeaderProgress::Incomplete { needs: 16 + 0x0F0C }));
    for cut in [&b"\x02"[..], b"\x02\0", b"\x02\0\x05shop", b"\x02\0\x04shop\x05\0"] {
        assert_eq!(read(&v4_with(cut)), Err(HeaderError::Malformed("a TLV that is cut short")));
    }
    let id = [&[tlv_type::UNIQUE_ID, 0, 129][..], &[b'x'; 129]].concat();
    assert!(matches!(read(&v4_with(&id)), Err(HeaderError::Malformed(_))));
}

#[test]
fn tlvs_are_bounded_and_those_of_the_machine_stay_on_it() {
    let mut tlvs = Tlvs::default();
    for kind in [tlv_type::CRC32C, tlv_type::NOOP] {
        assert_eq!(tlvs.push(kind, b""), Err(TlvError::Reserved));
    }
    assert_eq!(tlvs.push(tlv_type::AUTHORITY, &vec![0; 65536]), Err(TlvError::TooLong));
    for (kind, value) in
        [(tlv_type::NETNS, "blue"), (tlv_type::AUTHORITY, "shop"), (tlv_type::MIN_FUTURE, "?"), (0xE0, "x")]
    {
        tlvs.push(kind, value.as_bytes()).unwrap();
    }
    let kinds: Vec<u8> = tlvs.clone().for_next_hop().iter().map(|(kind, _)| kind).collect();
    assert_eq!(kinds, [tlv_type::AUTHORITY, 0xE0]);
    while tlvs.push(0xE0, &[0; 1000]).is_ok() {}
    assert!(tlvs.bytes().len() <= MAX_TLVS && MAX_TLVS < usize::from(u16::MAX) - 216 - 7);
}

/// Of FiberLB behind FiberLB.
#[test]
fn what_is_passed_on_is_taken_by_the_next_hop() {
    let mut tlvs = Tlvs::default();
    while tlvs.push(0xE0, &[7; 300]).is_ok() {}
    let mut passed = tlvs.for_next_hop();
    assert!(passed.iter().count() > 5);
    passed.push(tlv_type::UNIQUE_ID, &[b'x'; 128]).unwrap();
    let (source, destination) = ("[2001:db8::1]:1".parse().unwrap(), "[2001:db8::2]:2".parse().unwrap());
    let header = Header { subject: Subject::Tcp(Endpoints { source, destination }), tlvs: passed };
    let bytes = encode(Version::V2, &header);
    assert!(bytes.len() <= MAX_V2, "{}", bytes.len());
    assert!(matches!(parse(&bytes), Ok(HeaderProgress::Complete { .. })));
}

fn address() -> impl Strategy<Value = SocketAddr> {
    let v4 = any::<[u8; 4]>().prop_map(IpAddr::from);
    let v6 = any::<[u8; 16]>().prop_map(IpAddr::from);
    (prop_oneof![v4, v6], any::<u16>()).prop_map(|(ip, port)| SocketAddr::new(ip.to_canonical(), port))
}

fn header_of_a_client() -> impl Strategy<Value = Header> {
    let tlv = (
        prop_oneof![Just(1_u8), Just(2), Just(5), Just(0x20), 0xE0..=0xEF_u8],
        prop::collection::vec(any::<u8>(), 0..60),
    );
    (address(), address(), prop::collection::vec(tlv, 0..5)).prop_map(|(source, destination, given)| {
        let mut tlvs = Tlvs::default();
        given.iter().for_each(|(kind, value)| tlvs.push(*kind, value).unwrap());
        Header { subject: Subject::Tcp(of_one_family(Endpoints { source, destination })), tlvs }
    })
}

/// Headers as proxies send them, and some that they do not, from the seeds of the fuzz target.
fn seeds() -> Vec<Vec<u8>> {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/seeds/proxy_header");
    let files =
        std::fs::read_dir(directory).unwrap().map(|entry| std::fs::read(entry.unwrap().path()).unwrap());
    let seeds: Vec<Vec<u8>> = files.collect();
    assert!(!seeds.is_empty());
    seeds
}

proptest! {
    #[test]
    fn a_header_is_read_as_it_was_written(header in header_of_a_client(), behind: Vec<u8>) {
        let bytes = encode(Version::V2, &header);
        let length = bytes.len();
        prop_assert_eq!(parse(&[&bytes[..], &behind].concat()), Ok(HeaderProgress::Complete { header: header.clone(), length }));
        let line = encode(Version::V1, &header);
        let length = line.len();
        let header = Header::from(header.subject);
        prop_assert_eq!(parse(&[&line[..], &behind].concat()), Ok(HeaderProgress::Complete { header, length }));
        for whole in [&bytes, &line] {
            for end in 0..whole.len() {
                let progress = parse(&whole[..end]);
                prop_assert!(matches!(progress, Ok(HeaderProgress::Incomplete { needs }) if needs > end && needs <= whole.len()), "{progress:?} at {end}");
            }
        }
    }

    #[test]
    fn no_bytes_break_the_parser(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        fuzzing::header(&bytes);
        fuzzing::header(&[b"PROXY ", &bytes[..]].concat());
        fuzzing::header(&[&V4[..12], &bytes].concat());
    }

    #[test]
    fn no_changed_header_breaks_the_parser(
        seed in prop::sample::select(seeds()),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = seed;
        for (index, byte) in changes {
            let at = index.index(bytes.len());
            bytes[at] = byte;
        }
        bytes.truncate(cut.index(bytes.len() * 4).max(1));
        fuzzing::header(&bytes);
    }
}
