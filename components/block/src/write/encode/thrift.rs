//! The few Thrift structures that stand between pages, in the compact protocol.

use tempo_model::otlp::write_varint;

/// Writes one structure after another into a buffer.
pub(in super::super) struct Thrift<'a> {
    out: &'a mut Vec<u8>,
    last_field: i16,
}

/// Type codes of the compact protocol.
const TRUE: u8 = 1;
const FALSE: u8 = 2;
const I32: u8 = 5;
const I64: u8 = 6;
const LIST: u8 = 9;
const STRUCT: u8 = 12;

impl<'a> Thrift<'a> {
    pub(in super::super) fn new(out: &'a mut Vec<u8>) -> Self {
        Self { out, last_field: 0 }
    }

    fn field(&mut self, id: i16, kind: u8) {
        // Ids ascend by less than 16 in all structures written here.
        self.out.push(((id - self.last_field) as u8) << 4 | kind);
        self.last_field = id;
    }

    fn zigzag(&mut self, value: i64) {
        write_varint(self.out, (value << 1 ^ value >> 63) as u64);
    }

    pub(in super::super) fn i32(&mut self, id: i16, value: i32) {
        self.field(id, I32);
        self.zigzag(i64::from(value));
    }

    pub(in super::super) fn i64(&mut self, id: i16, value: i64) {
        self.field(id, I64);
        self.zigzag(value);
    }

    pub(in super::super) fn bool(&mut self, id: i16, value: bool) {
        self.field(id, if value { TRUE } else { FALSE });
    }

    /// A structure as a field.
    pub(in super::super) fn structure(&mut self, id: i16, fields: impl FnOnce(&mut Thrift<'_>)) {
        self.field(id, STRUCT);
        let mut inner = Thrift::new(self.out);
        fields(&mut inner);
        inner.end();
    }

    /// A list of structures as a field.
    pub(in super::super) fn structures<T>(
        &mut self,
        id: i16,
        items: &[T],
        fields: impl Fn(&mut Thrift<'_>, &T),
    ) {
        self.field(id, LIST);
        match items.len() {
            count @ 0..15 => self.out.push((count as u8) << 4 | STRUCT),
            count => {
                self.out.push(0xf0 | STRUCT);
                write_varint(self.out, count as u64);
            }
        }
        for item in items {
            let mut inner = Thrift::new(self.out);
            fields(&mut inner, item);
            inner.end();
        }
    }

    /// Ends the structure.
    pub(in super::super) fn end(self) {
        self.out.push(0);
    }
}
