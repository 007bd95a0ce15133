//! Reading against a model of a server whose rows change meanwhile.

use proptest::prelude::*;

use super::*;

#[test]
fn parts_grow_with_short_rows_and_shrink_with_long_ones() {
    let mut size = PartSize::new(800_000, 0);
    assert_eq!(size.rows, 16);
    size.learn(16, 1600);
    assert_eq!(size.rows, 256, "by 16 at most");
    size.learn(256, 25_600);
    assert_eq!(size.rows, 1000, "100,000 bytes");
    size.learn(1000, 1_000_000_000);
    assert_eq!(size.rows, 1);
    size.learn(1, 0);
    assert_eq!(size.rows, 16);
    size.restart();
    assert_eq!(size.rows, 16);
}

#[test]
fn parts_that_were_too_long_become_shorter_down_to_one_row() {
    let with = |caution| PartSize::new(128 << 20, caution);
    assert_eq!((with(0).rows, with(0).bytes), (16, 16 << 20));
    assert_eq!((with(1).rows, with(1).bytes), (4, 4 << 20));
    for caution in [13, 31, 32, u32::MAX] {
        let mut size = with(caution);
        assert_eq!(size.rows, 1);
        size.learn(1, 100);
        assert_eq!(size.rows, 1, "{caution}");
    }
}

/// Rows by table and number; a row is its columns.
type Rows = BTreeMap<(&'static str, u8), Columns>;

/// Event in a database.
#[derive(Clone, Debug)]
enum Action {
    /// The row gets these elements and this text. It is inserted if there is none.
    Write(&'static str, u8, Vec<u8>, String),
    Delete(&'static str, u8),
    /// The server answers the request.
    Answer,
}

fn actions() -> impl Strategy<Value = Vec<Action>> {
    let table = || prop::sample::select(vec!["T", "U"]);
    let elements = || prop::collection::vec(0..3_u8, 0..3);
    let write = (table(), 0..40_u8, elements(), "[ab]{0,9}");
    let action = prop_oneof![
        write.prop_map(|(table, number, elements, text)| Action::Write(table, number, elements, text)),
        (table(), 0..40_u8).prop_map(|(table, number)| Action::Delete(table, number)),
        Just(Action::Answer),
    ];
    prop::collection::vec(action, 0..120)
}

fn schema() -> Arc<Schema> {
    let columns = json!({"set": {"type": {"key": "integer", "min": 0, "max": "unlimited"}}, "text": {"type": "string"}});
    let tables = json!({"T": {"columns": columns}, "U": {"columns": columns}});
    Arc::new(Schema::parse(&json!({"version": "1.0.0", "tables": tables})).unwrap())
}

fn columns(elements: &[u8], text: &str) -> Columns {
    let elements: std::collections::BTreeSet<u8> = elements.iter().copied().collect();
    let set = match elements.iter().collect::<Vec<_>>()[..] {
        [one] => json!(one),
        _ => value::set(elements.iter().map(|element| json!(element))),
    };
    Columns::from_iter([("set".to_owned(), set), ("text".to_owned(), json!(text))])
}

fn update(table: &str, number: u8, change: RowChange) -> RowUpdate {
    RowUpdate { table: table.to_owned(), uuid: Uuid::from_u128(number.into()), change }
}

/// Differences of all columns, as a server sends them.
fn difference(schema: &Schema, table: &str, before: &Columns, after: &Columns) -> Columns {
    let changed = after.iter().filter_map(|(column, after)| {
        let kind = schema.kind(table, column);
        let difference = cell::difference(kind, &cell::read(&before[column]), &cell::read(after))?;
        Some((column.clone(), cell::write(kind, &difference)))
    });
    changed.collect()
}

/// The server: all rows, and the session that reads them.
struct Model {
    rows: Rows,
    reading: Reading,
}

impl Model {
    fn new(rows: Rows) -> Self {
        let request = json!({"columns": ["set", "text"], "select": {"initial": false}});
        let requests = json!({"T": [request], "U": [request]});
        Self { rows, reading: Reading::new(schema(), &requests, PartSize::new(400, 0)) }
    }

    fn act(&mut self, action: Action) {
        let updates = match action {
            Action::Write(table, number, elements, text) => {
                let after = columns(&elements, &text);
                let before = self.rows.insert((table, number), after.clone());
                let change = match &before {
                    None => RowChange::Insert(after),
                    Some(before) => RowChange::Modify(difference(&schema(), table, before, &after)),
                };
                vec![update(table, number, change)]
            }
            Action::Delete(table, number) => match self.rows.remove(&(table, number)) {
                Some(_) => vec![update(table, number, RowChange::Delete)],
                None => Vec::new(),
            },
            Action::Answer => return self.answer(),
        };
        self.reading.update(Uuid::nil(), updates);
    }

    /// Answers the request as a server does: with the rows that it has now, defaults omitted.
    fn answer(&mut self) {
        let Some(request) = self.reading.request() else { return };
        let (table, parts) = request.as_object().unwrap().iter().next().unwrap();
        let columns = parts[0]["columns"].as_array().unwrap();
        let is_wanted = |number: u8| {
            let this = json!(["_uuid", "==", ["uuid", Uuid::from_u128(number.into())]]);
            parts[0].get("where").is_none_or(|any| any.as_array().unwrap().contains(&this))
        };
        let rows = self.rows.iter().filter(|((of, number), _)| of == table && is_wanted(*number));
        let rows = rows.map(|((_, number), row)| {
            let row = row.iter().filter(|(column, _)| columns.contains(&json!(column)));
            let row = row.filter(|(column, value)| schema().default_of(table, column) != **value);
            let row = row.map(|(column, value)| (column.clone(), value.clone())).collect();
            update(table, *number, RowChange::Insert(row))
        });
        let rows: Vec<RowUpdate> = rows.collect();
        let bytes = rows.iter().map(|row| format!("{row:?}").len()).sum();
        self.reading.reply(rows, bytes);
    }

    /// Rows that were read when all was answered, and rows that there are, both with their defaults.
    fn finish(mut self) -> (Rows, Rows) {
        while self.reading.request().is_some() {
            self.answer();
        }
        let (_, read) = self.reading.finish();
        let read = read.into_iter().map(|row| {
            let RowChange::Insert(columns) = row.change else { panic!("{:?} is no content", row.change) };
            let table = if row.table == "T" { "T" } else { "U" };
            let mut all = self::columns(&[], "");
            all.extend(columns);
            ((table, u8::try_from(row.uuid.as_u128()).unwrap()), all)
        });
        let read: Vec<_> = read.collect();
        let count = read.len();
        let read: Rows = read.into_iter().collect();
        assert_eq!(read.len(), count, "a row came twice");
        (read, self.rows)
    }
}

proptest! {
    /// Whatever changes while the content is read, what was read is what there is.
    #[test]
    fn what_was_read_is_what_there_is(before in actions(), meanwhile in actions()) {
        let mut earlier = Model::new(Rows::new());
        before.into_iter().for_each(|action| earlier.act(action));
        let mut model = Model::new(earlier.rows);
        meanwhile.into_iter().for_each(|action| model.act(action));
        let (read, there) = model.finish();
        prop_assert_eq!(read, there);
    }

    /// A server may send unsolicited rows, and leave out others: no panic, and an end.
    #[test]
    fn any_reply_brings_the_end_closer(replies in prop::collection::vec(prop::collection::vec((0..3_u8, any::<bool>()), 0..4), 0..20)) {
        let mut model = Model::new(Rows::new());
        for reply in replies {
            let rows = reply.into_iter().map(|(number, is_ours)| {
                let table = if is_ours { "T" } else { "V" };
                update(table, number, RowChange::Insert(Columns::new()))
            });
            model.reading.reply(rows.collect(), 100);
        }
        model.finish();
    }
}
