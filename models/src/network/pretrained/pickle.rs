//! Just enough of Python's pickle to read the names and places of the tensors in a PyTorch state dict.
//!
//! Nothing is executed, and nothing is nested in memory: every object is an index into one list, so that time and memory
//! are bounded by the length of the pickle, whatever it says. The opcodes are those of protocol 2
//! (<https://github.com/python/cpython/blob/main/Lib/pickletools.py>).

use std::{
    collections::{BTreeMap, HashMap},
    io::{self, BufRead, Read},
};

/// A longer pickle is refused; that of VGG-19 with batch normalisation takes 20 KB.
const MAX_LENGTH: u64 = 1 << 24;

/// Why a pickle is not understood.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PickleError {
    /// It ends before it is complete, is too long, or cannot be read.
    #[error("the pickle ends too early, or is longer than {MAX_LENGTH} bytes")]
    Read(#[from] io::Error),
    /// An instruction that no state dict needs.
    #[error("the pickle has the instruction {opcode:#04x}, which no state dict needs")]
    Opcode {
        /// The instruction.
        opcode: u8,
    },
    /// An instruction that lacks what it works on.
    #[error("the pickle's instruction {opcode:#04x} has nothing of the right kind to work on")]
    Operands {
        /// The instruction.
        opcode: u8,
    },
    /// A text that is not UTF-8.
    #[error("the pickle holds a text that is not UTF-8")]
    Text,
    /// Something else than tensors by name.
    #[error("the pickle is no dictionary of tensors by name")]
    NotAStateDict,
    /// A list of storages was expected.
    #[error("the pickle is no list of storages")]
    NotAList,
}

/// A tensor of a state dict: which part of which storage it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct StoredTensor {
    pub storage: String,
    /// PyTorch's class, such as `FloatStorage`.
    pub kind: String,
    /// Numbers in the storage.
    pub count: u64,
    /// Numbers in front of the tensor.
    pub offset: u64,
    pub shape: Vec<usize>,
    pub strides: Vec<usize>,
}

impl StoredTensor {
    /// Whether its numbers lie in the storage one after the other, the last dimension first.
    pub fn is_contiguous(&self) -> bool {
        let mut expected = 1usize;
        self.shape.len() == self.strides.len()
            && self.shape.iter().zip(&self.strides).rev().all(|(&size, &stride)| {
                let fits = size == 1 || stride == expected;
                expected = expected.saturating_mul(size);
                fits
            })
    }
}

/// Reads a pickled state dict.
pub(super) fn state_dict(reader: &mut impl BufRead) -> Result<BTreeMap<String, StoredTensor>, PickleError> {
    let (objects, root) = Machine::run(reader)?;
    let Object::Dict(entries) = &objects[root] else { return Err(PickleError::NotAStateDict) };
    let tensors: BTreeMap<_, _> = entries
        .iter()
        .filter_map(|&(key, value)| match &objects[key] {
            Object::Text(name) => Some((name.clone(), tensor(&objects, value)?)),
            _ => None,
        })
        .collect();
    if tensors.is_empty() { Err(PickleError::NotAStateDict) } else { Ok(tensors) }
}

/// Reads a pickled list of texts.
pub(super) fn texts(reader: &mut impl BufRead) -> Result<Vec<String>, PickleError> {
    let (objects, root) = Machine::run(reader)?;
    let Object::List(items) = &objects[root] else { return Err(PickleError::NotAList) };
    let text = |&item: &Id| match &objects[item] {
        Object::Text(text) => Ok(text.clone()),
        _ => Err(PickleError::NotAList),
    };
    items.iter().map(text).collect()
}

/// Reads a pickle, whatever it is.
pub(super) fn skip(reader: &mut impl BufRead) -> Result<(), PickleError> {
    Machine::run(reader).map(drop)
}

/// The place of an object in the list of all.
type Id = usize;

enum Object {
    /// Numbers that are not whole, truth values, `None`.
    Other,
    Int(i64),
    Text(String),
    /// A class or a function by its name.
    Global(String),
    Tuple(Vec<Id>),
    List(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    /// Something outside the pickle, by the tuple that describes it.
    Persistent(Id),
    /// A function and its arguments.
    Call(Id, Id),
}

/// What `torch._utils` rebuilds from its arguments.
fn tensor(objects: &[Object], id: Id) -> Option<StoredTensor> {
    let Object::Call(function, arguments) = objects[id] else { return None };
    let (Object::Global(function), Object::Tuple(arguments)) = (&objects[function], &objects[arguments]) else {
        return None;
    };
    match (function.as_str(), arguments.as_slice()) {
        // A parameter holds a tensor, which holds no parameter: the chain ends here.
        ("_rebuild_parameter", &[data, ..]) if !is_parameter(objects, data) => tensor(objects, data),
        ("_rebuild_tensor" | "_rebuild_tensor_v2", &[storage, offset, shape, strides, ..]) => {
            let Object::Persistent(description) = objects[storage] else { return None };
            let &[_, kind, key, _, count, ..] = tuple(objects, description)? else { return None };
            let (Object::Global(kind), Object::Text(key)) = (&objects[kind], &objects[key]) else { return None };
            Some(StoredTensor {
                storage: key.clone(),
                kind: kind.clone(),
                count: whole(objects, count)?,
                offset: whole(objects, offset)?,
                shape: wholes(objects, shape)?,
                strides: wholes(objects, strides)?,
            })
        }
        _ => None,
    }
}

fn is_parameter(objects: &[Object], id: Id) -> bool {
    let Object::Call(function, _) = objects[id] else { return false };
    matches!(&objects[function], Object::Global(name) if name == "_rebuild_parameter")
}

fn tuple(objects: &[Object], id: Id) -> Option<&[Id]> {
    if let Object::Tuple(items) = &objects[id] { Some(items) } else { None }
}

fn whole(objects: &[Object], id: Id) -> Option<u64> {
    if let Object::Int(value) = objects[id] { value.try_into().ok() } else { None }
}

fn wholes(objects: &[Object], id: Id) -> Option<Vec<usize>> {
    tuple(objects, id)?.iter().map(|&item| whole(objects, item)?.try_into().ok()).collect()
}

/// The stack machine that a pickle is a program of.
#[derive(Default)]
struct Machine {
    objects: Vec<Object>,
    stack: Vec<Id>,
    /// How high the stack was at each mark.
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
}

impl Machine {
    /// All objects, and which of them is the whole.
    fn run(reader: &mut impl BufRead) -> Result<(Vec<Object>, Id), PickleError> {
        let mut machine = Self::default();
        let mut reader = reader.take(MAX_LENGTH);
        loop {
            let [opcode] = bytes(&mut reader)?;
            if opcode == b'.' {
                let root = machine.pop(opcode)?;
                return Ok((machine.objects, root));
            }
            machine.step(opcode, &mut reader)?;
        }
    }

    fn step(&mut self, opcode: u8, reader: &mut impl BufRead) -> Result<(), PickleError> {
        match opcode {
            0x80 => _ = bytes::<1>(reader)?,
            b'(' => self.marks.push(self.stack.len()),
            b'N' | 0x88 | 0x89 => self.push(Object::Other),
            b'G' => {
                bytes::<8>(reader)?;
                self.push(Object::Other);
            }
            b'K' => self.push(Object::Int(u8::from_le_bytes(bytes(reader)?).into())),
            b'M' => self.push(Object::Int(u16::from_le_bytes(bytes(reader)?).into())),
            b'J' => self.push(Object::Int(i32::from_le_bytes(bytes(reader)?).into())),
            0x8a => self.push_long(reader)?,
            b'X' | b'T' | b'U' => self.push_text(opcode, reader)?,
            b'c' => {
                line(reader)?;
                let name = line(reader)?;
                self.push(Object::Global(name));
            }
            b'q' => self.remember(u8::from_le_bytes(bytes(reader)?).into(), opcode)?,
            b'r' => self.remember(u32::from_le_bytes(bytes(reader)?), opcode)?,
            b'h' => self.recall(u8::from_le_bytes(bytes(reader)?).into(), opcode)?,
            b'j' => self.recall(u32::from_le_bytes(bytes(reader)?), opcode)?,
            b')' => self.push(Object::Tuple(Vec::new())),
            b']' => self.push(Object::List(Vec::new())),
            b'}' => self.push(Object::Dict(Vec::new())),
            b't' => {
                let items = self.since_mark(opcode)?;
                self.push(Object::Tuple(items));
            }
            0x85..=0x87 => {
                let start = self.stack.len().checked_sub(usize::from(opcode - 0x84));
                let items = self.stack.split_off(start.ok_or(PickleError::Operands { opcode })?);
                self.push(Object::Tuple(items));
            }
            b'a' | b'e' | b's' | b'u' => self.add(opcode)?,
            b'Q' => {
                let description = self.pop(opcode)?;
                self.push(Object::Persistent(description));
            }
            b'R' | 0x81 => {
                let (arguments, function) = (self.pop(opcode)?, self.pop(opcode)?);
                let object = self.call(function, arguments);
                self.push(object);
            }
            // The state of an object beside its entries: hooks and versions.
            b'b' => _ = self.pop(opcode)?,
            _ => return Err(PickleError::Opcode { opcode }),
        }
        Ok(())
    }

    fn push(&mut self, object: Object) {
        self.stack.push(self.objects.len());
        self.objects.push(object);
    }

    fn pop(&mut self, opcode: u8) -> Result<Id, PickleError> {
        self.stack.pop().ok_or(PickleError::Operands { opcode })
    }

    /// A whole number of up to 255 bytes; one that does not fit is no size of anything.
    fn push_long(&mut self, reader: &mut impl BufRead) -> Result<(), PickleError> {
        let [length] = bytes(reader)?;
        let digits = text(reader, length.into())?;
        let mut value = [if digits.last().is_some_and(|&last| last >= 0x80) { 0xff } else { 0 }; 8];
        let fits = digits.len() <= value.len();
        if fits {
            value[..digits.len()].copy_from_slice(&digits);
        }
        self.push(if fits { Object::Int(i64::from_le_bytes(value)) } else { Object::Other });
        Ok(())
    }

    fn push_text(&mut self, opcode: u8, reader: &mut impl BufRead) -> Result<(), PickleError> {
        let length = match opcode {
            b'U' => u8::from_le_bytes(bytes(reader)?).into(),
            _ => u32::from_le_bytes(bytes(reader)?),
        };
        let text = String::from_utf8(text(reader, length)?).map_err(|_| PickleError::Text)?;
        self.push(Object::Text(text));
        Ok(())
    }

    fn remember(&mut self, key: u32, opcode: u8) -> Result<(), PickleError> {
        let top = *self.stack.last().ok_or(PickleError::Operands { opcode })?;
        self.memo.insert(key, top);
        Ok(())
    }

    fn recall(&mut self, key: u32, opcode: u8) -> Result<(), PickleError> {
        let id = *self.memo.get(&key).ok_or(PickleError::Operands { opcode })?;
        self.stack.push(id);
        Ok(())
    }

    fn since_mark(&mut self, opcode: u8) -> Result<Vec<Id>, PickleError> {
        let mark = self.marks.pop().filter(|&mark| mark <= self.stack.len());
        Ok(self.stack.split_off(mark.ok_or(PickleError::Operands { opcode })?))
    }

    /// Adds what is on the stack to the list or the dictionary below it.
    fn add(&mut self, opcode: u8) -> Result<(), PickleError> {
        let items = match opcode {
            b'a' => vec![self.pop(opcode)?],
            b's' => {
                let (value, key) = (self.pop(opcode)?, self.pop(opcode)?);
                vec![key, value]
            }
            _ => self.since_mark(opcode)?,
        };
        let into = self.stack.last().map(|&id| &mut self.objects[id]);
        match (opcode, into) {
            (b'a' | b'e', Some(Object::List(list))) => list.extend(items),
            (b's' | b'u', Some(Object::Dict(dict))) => {
                dict.extend(items.as_chunks().0.iter().map(|&[key, value]| (key, value)));
            }
            // An object of a class, such as a set of hooks: nothing that is looked at.
            (_, Some(Object::Call(..))) => {}
            _ => return Err(PickleError::Operands { opcode }),
        }
        Ok(())
    }

    /// An ordered dictionary, empty or (by Python 2) of a list of pairs, which it takes; other calls stay calls.
    fn call(&mut self, function: Id, arguments: Id) -> Object {
        if !matches!(&self.objects[function], Object::Global(name) if name == "OrderedDict") {
            return Object::Call(function, arguments);
        }
        let items = tuple(&self.objects, arguments).and_then(|arguments| arguments.first().copied());
        let pairs = match items.map(|items| &mut self.objects[items]) {
            Some(Object::List(pairs)) => std::mem::take(pairs),
            _ => Vec::new(),
        };
        let pair = |&id: &Id| match &self.objects[id] {
            Object::List(pair) | Object::Tuple(pair) => pair.first_chunk().map(|&[key, value]| (key, value)),
            _ => None,
        };
        Object::Dict(pairs.iter().filter_map(pair).collect())
    }
}

fn bytes<const COUNT: usize>(reader: &mut impl Read) -> Result<[u8; COUNT], PickleError> {
    let mut bytes = [0; COUNT];
    reader.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// So many bytes; memory grows only with what is really there.
fn text(reader: &mut impl Read, length: u32) -> Result<Vec<u8>, PickleError> {
    let mut bytes = Vec::new();
    reader.take(length.into()).read_to_end(&mut bytes)?;
    if bytes.len() as u64 == u64::from(length) {
        return Ok(bytes);
    }
    Err(io::Error::from(io::ErrorKind::UnexpectedEof).into())
}

fn line(reader: &mut impl BufRead) -> Result<String, PickleError> {
    let mut line = String::new();
    reader.read_line(&mut line).map_err(|error| match error.kind() {
        io::ErrorKind::InvalidData => PickleError::Text,
        _ => error.into(),
    })?;
    Ok(line.trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pickle: &[u8]) -> Result<BTreeMap<String, StoredTensor>, PickleError> {
        state_dict(&mut &pickle[..])
    }

    /// A tensor of 2×3 as PyTorch of early 2017 pickled it, under Python 2: an ordered dictionary of pairs, byte strings,
    /// and the first version of the function.
    const OLD: &[u8] = b"\x80\x02ccollections\nOrderedDict\nq\x01]q\x02]q\x03(U\x01wq\x04\
        ctorch._utils\n_rebuild_tensor\nq\x05((U\x07storageq\x06ctorch\nFloatStorage\nq\x07U\x0242q\x08U\x03cpuq\x09K\x08NtQ\
        K\x02K\x02K\x03\x86K\x03K\x01\x86tRea\x85R.";

    #[test]
    fn the_oldest_files_are_read() {
        let expected = StoredTensor {
            storage: "42".into(),
            kind: "FloatStorage".into(),
            count: 8,
            offset: 2,
            shape: vec![2, 3],
            strides: vec![3, 1],
        };
        assert!(expected.is_contiguous());
        assert!(!StoredTensor { strides: vec![1, 2], ..expected.clone() }.is_contiguous());
        assert_eq!(read(OLD).expect("a state dict"), BTreeMap::from([("w".to_owned(), expected)]));
    }

    #[test]
    fn nothing_but_a_state_dict_is_read() {
        assert!(matches!(read(b"\x80\x02K\x01."), Err(PickleError::NotAStateDict)));
        assert!(matches!(read(b"\x80\x02}."), Err(PickleError::NotAStateDict)));
        assert!(matches!(read(b"\x80\x04\x95"), Err(PickleError::Opcode { opcode: 0x95 })));
        assert!(matches!(read(b"\x80\x02R"), Err(PickleError::Operands { opcode: b'R' })));
        assert!(matches!(read(b"X\xff\xff\xff\xffabc"), Err(PickleError::Read(_))));
        assert!(matches!(read(b"X\x02\0\0\0\xff\xff."), Err(PickleError::Text)));
        for length in 0..OLD.len() {
            assert!(read(&OLD[..length]).is_err(), "{length}");
        }
    }

    #[test]
    fn deep_and_self_similar_pickles_take_no_more_memory_than_they_are_long() {
        // A million tuples, each in the next; then a list that holds itself; then a pair of pairs of pairs, and so on.
        let nested = [&b"N"[..], &vec![0x85; 1_000_000], b"."].concat();
        assert!(matches!(read(&nested), Err(PickleError::NotAStateDict)));
        assert!(matches!(read(b"]q\x01h\x01a."), Err(PickleError::NotAStateDict)));
        let doubled: Vec<u8> = std::iter::repeat_n(&b"q\x01h\x01\x86"[..], 100_000).flatten().copied().collect();
        assert!(matches!(read(&[&b"N"[..], &doubled, b"."].concat()), Err(PickleError::NotAStateDict)));
    }
}
