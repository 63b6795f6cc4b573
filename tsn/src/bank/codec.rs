//! A bank as a file and back: names of tensors, metadata fields, and what only a file can get wrong.

use dt::autograd::engine::kernels::BitMask;

use super::online;
use super::{ActionKind, Bank, Codebook, CopyRecord, FORMAT_VERSION, Named, TaskRecord, Weight};
use crate::error::Error;
use crate::file::{Tensor, TensorFile, TensorWriter, short};

const FORMAT: &str = "tsn-bank";

impl Bank {
    /// Reads a bank from an opened file.
    ///
    /// # Errors
    /// [`Error::Version`] for a newer format; [`Error::Bank`], [`Error::File`] if its parts contradict each other.
    pub fn from_file(file: TensorFile) -> Result<Bank, Error> {
        read_version(&file)?;
        let copies = read_copies(&file)?;
        let bank = Bank {
            config: file.metadata_under("config.").map(own).collect(),
            parent: file.checksum().map(str::to_owned),
            tasks: read_tasks(&file, &copies)?,
            copies,
        };
        check_kinds(&file, &bank)?;
        let stored = field::<String>(&file, "config_hash")?;
        if stored != bank.config_hash() {
            return Err(Error::bank("config_hash", bank.config_hash(), short(&stored)));
        }
        drop(file); // The checks need room of their own.
        bank.check()?;
        Ok(bank)
    }

    /// The bank as a file yet to be written.
    ///
    /// # Errors
    /// [`Error::Bank`] if the bank would be refused by [`Bank::open`].
    pub fn to_writer(&self) -> Result<TensorWriter, Error> {
        self.check()?;
        let mut file = TensorWriter::new();
        file.meta("format", format!("{FORMAT} {FORMAT_VERSION}"));
        file.meta("copies", self.copies.len().to_string());
        file.meta("tasks", self.tasks.len().to_string());
        file.meta("config_hash", self.config_hash());
        self.config.iter().for_each(|(key, value)| file.meta(format!("config.{key}"), value));
        if let Some(parent) = &self.parent {
            file.meta("parent", parent);
        }
        for (c, copy) in self.copies.iter().enumerate() {
            for weight in &copy.weights {
                let shape = [u64::from(weight.rows), u64::from(weight.cols)];
                file.add(format!("copy.{c}.weight.{}", weight.name), &shape, &weight.values);
            }
            for (weight, occupied) in copy.masked() {
                add_mask(&mut file, format!("copy.{c}.occupied.{}", weight.name), occupied);
            }
        }
        for (t, task) in self.tasks.iter().enumerate() {
            write_task(&mut file, t, task, &self.copies[task.copy]);
        }
        Ok(file)
    }
}

fn add_mask(file: &mut TensorWriter, name: String, mask: &BitMask) {
    file.add(name, &[u64::from(mask.rows()), mask.words_per_row() as u64], mask.words());
}

fn write_task(file: &mut TensorWriter, t: usize, task: &TaskRecord, copy: &CopyRecord) {
    let (kind, width, used) = match &task.action {
        ActionKind::Discrete { n, valid } => ("discrete", n, valid),
        ActionKind::Continuous { d, active } => ("continuous", d, active),
    };
    let fields = [
        ("name", task.name.clone()),
        ("copy", task.copy.to_string()),
        ("source", task.source.map_or_else(|| "none".to_owned(), |source| source.to_string())),
        ("action", kind.to_owned()),
        ("action_width", width.to_string()),
        ("actions", join(used)),
        // The debug form of a float is the shortest text that reads back to the same value.
        ("rtg_scale", format!("{:?}", task.rtg_scale)),
        ("target_return", format!("{:?}", task.target_return)),
        ("keep_ratio", format!("{:?}", task.keep_ratio)),
        ("own_loss", format!("{:?}", task.own_loss)),
        ("claimed", task.claimed.to_string()),
    ];
    fields.into_iter().for_each(|(field, value)| file.meta(format!("task.{t}.{field}"), value));
    task.notes.iter().for_each(|(key, value)| file.meta(format!("task.{t}.note.{key}"), value));

    for ((weight, _), mask) in copy.masked().zip(&task.masks) {
        add_mask(file, format!("task.{t}.mask.{}", weight.name), mask);
    }
    for (kind, list) in [("norm", &task.norms), ("extra", &task.extra)] {
        for named in list {
            file.add(format!("task.{t}.{kind}.{}", named.name), &named.shape, &named.values);
        }
    }
    let stats = [
        ("obs_mean", &task.obs_mean),
        ("obs_std", &task.obs_std),
        ("latent_mean", &task.latent_mean),
        ("latent_var", &task.latent_var),
    ];
    for (name, values) in stats.into_iter().filter(|(_, values)| !values.is_empty()) {
        file.add(format!("task.{t}.stat.{name}"), &[values.len() as u64], values);
    }
    if let Some(online) = &task.online {
        online::write(file, t, online);
    }
    for book in &task.codebooks {
        file.add(format!("task.{t}.centres.{}", book.tensor), &[book.centres.len() as u64], &book.centres);
        let packed: Vec<u8> = book.codes.chunks(2).map(|pair| pair[0] | pair.get(1).map_or(0, |c| c << 4)).collect();
        file.add(format!("task.{t}.codes.{}", book.tensor), &[packed.len() as u64], &packed);
        file.meta(format!("task.{t}.codes.{}", book.tensor), book.codes.len().to_string());
    }
}

fn read_version(file: &TensorFile) -> Result<(), Error> {
    let format = file.metadata("format").unwrap_or("none");
    let version = format.strip_prefix(FORMAT).and_then(|rest| rest.strip_prefix(' ')).and_then(|v| v.parse().ok());
    match version {
        Some(found) if found > FORMAT_VERSION => Err(Error::Version { found, newest: FORMAT_VERSION }),
        Some(1..) => Ok(()),
        _ => Err(Error::bank("format", format!("{FORMAT} {FORMAT_VERSION}"), short(format))),
    }
}

/// `OWNER.INDEX.KIND.NAME`, taken apart.
fn split(name: &str) -> Option<(&str, usize, &str, &str)> {
    let mut parts = name.splitn(4, '.');
    let (owner, index, kind, rest) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let at: usize = index.parse().ok()?;
    // One spelling per index, else two tensors could mean the same.
    (at.to_string() == index).then_some((owner, at, kind, rest))
}

/// Every tensor must be one that was read.
fn check_kinds(file: &TensorFile, bank: &Bank) -> Result<(), Error> {
    for tensor in file.tensors() {
        let known = match split(tensor.name()) {
            Some(("copy", c, "weight", _)) => c < bank.copies.len(),
            Some(("copy", c, "occupied", name)) => file.tensor(&format!("copy.{c}.weight.{name}")).is_ok(),
            Some(("task", t, kind, name)) => bank.tasks.get(t).is_some_and(|task| match kind {
                "mask" => file.tensor(&format!("copy.{}.occupied.{name}", task.copy)).is_ok(),
                "norm" | "extra" | "centres" => true,
                "stat" => matches!(name, "obs_mean" | "obs_std" | "latent_mean" | "latent_var"),
                "route" => task.online.is_some() && online::NAMES.contains(&name),
                "codes" => file.tensor(&format!("task.{t}.centres.{name}")).is_ok(),
                _ => false,
            }),
            _ => false,
        };
        if !known {
            return Err(Error::bank("tensors", "only copy.* and task.* tensors of this bank", short(tensor.name())));
        }
    }
    Ok(())
}

fn read_copies(file: &TensorFile) -> Result<Vec<CopyRecord>, Error> {
    let count: usize = field(file, "copies")?;
    // Each copy has a tensor, so a larger count is wrong and never allocated.
    let most = file.tensors().len();
    if count > most {
        return Err(Error::bank("copies", format!("at most {most}, the number of tensors"), count.to_string()));
    }
    let mut copies = vec![CopyRecord::default(); count];
    for tensor in file.tensors() {
        let Some(("copy", c, "weight", name)) = split(tensor.name()) else { continue };
        let Some(copy) = copies.get_mut(c) else {
            return Err(Error::bank(short(tensor.name()), format!("a copy below {count}"), c.to_string()));
        };
        let [rows, cols] = matrix(tensor)?;
        let occupied = match file.tensor(&format!("copy.{c}.occupied.{name}")) {
            Ok(mask) => Some(read_mask(file, mask, rows, cols)?),
            Err(_) => None,
        };
        copy.weights.push(Weight { name: name.to_owned(), rows, cols, values: file.values(tensor)?, occupied });
    }
    Ok(copies)
}

fn read_tasks(file: &TensorFile, copies: &[CopyRecord]) -> Result<Vec<TaskRecord>, Error> {
    let count: usize = field(file, "tasks")?;
    // Ends at the first task without fields, however large the count.
    let mut tasks = Vec::new();
    for t in 0..count {
        let mut task = read_task(file, t)?;
        let Some(copy) = copies.get(task.copy) else {
            let (expected, found) = (format!("below {}", copies.len()), task.copy.to_string());
            return Err(Error::bank(format!("task.{t}.copy"), expected, found));
        };
        for (weight, _) in copy.masked() {
            let mask = file.tensor(&format!("task.{t}.mask.{}", weight.name))?;
            task.masks.push(read_mask(file, mask, weight.rows, weight.cols)?);
        }
        tasks.push(task);
    }
    for tensor in file.tensors() {
        let Some(("task", t, kind, name)) = split(tensor.name()) else { continue };
        let Some(task) = tasks.get_mut(t) else {
            return Err(Error::bank(short(tensor.name()), format!("a task below {count}"), t.to_string()));
        };
        let named = || -> Result<Named, Error> {
            Ok(Named { name: name.to_owned(), shape: tensor.shape().to_vec(), values: file.values(tensor)? })
        };
        match kind {
            "norm" => task.norms.push(named()?),
            "extra" => task.extra.push(named()?),
            "centres" => {
                let codes = read_codes(file, t, name)?;
                task.codebooks.push(Codebook { tensor: name.to_owned(), centres: file.values(tensor)?, codes });
            }
            _ => {}
        }
    }
    Ok(tasks)
}

fn read_task(file: &TensorFile, t: usize) -> Result<TaskRecord, Error> {
    let key = |name: &str| format!("task.{t}.{name}");
    let number = |name: &str| field::<f64>(file, &key(name));
    let stat = |name: &str| -> Result<Vec<f32>, Error> {
        // Absent if empty.
        file.tensor(&format!("task.{t}.stat.{name}")).map_or(Ok(Vec::new()), |tensor| Ok(file.values(tensor)?))
    };
    let source = match &*field::<String>(file, &key("source"))? {
        "none" => None,
        _ => Some(field(file, &key("source"))?),
    };
    let width = field(file, &key("action_width"))?;
    let used = field::<String>(file, &key("actions"))?;
    let parsed: Result<Vec<u32>, _> = used.split(',').map(str::parse).collect();
    let used = parsed.map_err(|_| Error::bank(key("actions"), "numbers with commas between", short(&used)))?;
    let action = match &*field::<String>(file, &key("action"))? {
        "discrete" => ActionKind::Discrete { n: width, valid: used },
        "continuous" => ActionKind::Continuous { d: width, active: used },
        other => return Err(Error::bank(key("action"), "discrete or continuous", short(other))),
    };
    let prefix = key("note.");
    Ok(TaskRecord {
        name: field(file, &key("name"))?,
        copy: field(file, &key("copy"))?,
        source,
        masks: Vec::new(),
        norms: Vec::new(),
        obs_mean: stat("obs_mean")?,
        obs_std: stat("obs_std")?,
        rtg_scale: number("rtg_scale")?,
        target_return: number("target_return")?,
        action,
        keep_ratio: number("keep_ratio")?,
        latent_mean: stat("latent_mean")?,
        latent_var: stat("latent_var")?,
        extra: Vec::new(),
        own_loss: number("own_loss")?,
        claimed: field(file, &key("claimed"))?,
        codebooks: Vec::new(),
        online: online::read(file, t)?,
        notes: file.metadata_under(&prefix).map(own).collect(),
    })
}

fn read_codes(file: &TensorFile, t: usize, name: &str) -> Result<Vec<u8>, Error> {
    let key = format!("task.{t}.codes.{name}");
    let packed: Vec<u8> = file.values(file.tensor(&key)?)?;
    let count: usize = field(file, &key)?;
    let mut codes: Vec<u8> = packed.iter().flat_map(|byte| [byte & 15, byte >> 4]).collect();
    // An odd count leaves half a byte, which is zero.
    let padding_is_zero = codes.len() == count || codes.pop() == Some(0);
    if codes.len() != count || !padding_is_zero {
        return Err(Error::bank(short(&key), format!("{count} codes of 4 bits"), format!("{} bytes", packed.len())));
    }
    Ok(codes)
}

fn read_mask(file: &TensorFile, tensor: &Tensor, rows: u32, cols: u32) -> Result<BitMask, Error> {
    let words = cols.div_ceil(32);
    if tensor.shape() != [u64::from(rows), u64::from(words)] {
        let expected = format!("[{rows}, {words}], the words of a [{rows}, {cols}] weight");
        return Err(Error::bank(short(tensor.name()), expected, format!("{:?}", tensor.shape())));
    }
    BitMask::from_words(rows, cols, file.values(tensor)?)
        .ok_or_else(|| Error::bank(short(tensor.name()), "pad bits of zero", "a set one"))
}

fn matrix(tensor: &Tensor) -> Result<[u32; 2], Error> {
    let sizes: Vec<u32> = tensor.shape().iter().filter_map(|size| u32::try_from(*size).ok()).collect();
    match sizes[..] {
        [rows, cols] if tensor.shape().len() == 2 => Ok([rows, cols]),
        _ => Err(Error::bank(short(tensor.name()), "two sizes below 2^32", format!("{:?}", tensor.shape()))),
    }
}

/// A metadata entry of a type that reads itself.
fn field<T: std::str::FromStr>(file: &TensorFile, key: &str) -> Result<T, Error> {
    let text = file.metadata(key).ok_or_else(|| Error::bank("metadata", format!("an entry {key:?}"), "none"))?;
    text.parse().map_err(|_| Error::bank(key, "a number", short(text)))
}

fn own((key, value): (&str, &str)) -> (String, String) {
    (key.to_owned(), value.to_owned())
}

pub(super) fn join(numbers: &[u32]) -> String {
    numbers.iter().map(u32::to_string).collect::<Vec<_>>().join(",")
}
