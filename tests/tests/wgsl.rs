//! Shader sources without a GPU: every file parses, validates within WebGPU's default limits, follows the interface of
//! its contract, and translates to the languages of other drivers.

use kernels::contract::wgsl::{MAX_BINDINGS, PARAMS_BINDING, WORK_BINDING, parameters, shared, variable};
use kernels::{Contract, DType, GpuFeature, OPS, Wgsl};
use naga::valid::{Capabilities, ModuleInfo, ValidationFlags, Validator};
use naga::{AddressSpace, Module, ScalarKind, StorageAccess, TypeInner};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::process::Command;

fn sources() -> impl Iterator<Item = (&'static Contract, &'static Wgsl)> {
    OPS.iter().flat_map(|op| op.wgsl.iter().map(move |source| (*op, source)))
}

fn checked(op: &Contract, source: &Wgsl) -> (Module, ModuleInfo) {
    let what = || format!("{} {}", op.name, source.name);
    let module = naga::front::wgsl::parse_str(source.text)
        .unwrap_or_else(|error| panic!("{}:\n{}", what(), error.emit_to_string(source.text)));
    let capability = |feature: &GpuFeature| match feature {
        GpuFeature::Subgroups => Capabilities::SUBGROUP,
        GpuFeature::F16 => Capabilities::SHADER_FLOAT16,
    };
    let info = Validator::new(ValidationFlags::all(), source.needs.iter().map(capability).collect())
        .validate(&module)
        .unwrap_or_else(|error| panic!("{}:\n{}", what(), error.emit_to_string(source.text)));
    (module, info)
}

/// WGSL reserves some names; a file appends an underscore there.
fn is_named(found: Option<&str>, expected: &str) -> bool {
    found.is_some_and(|found| found == expected || found.strip_suffix('_') == Some(expected))
}

#[test]
fn every_source_validates() {
    for (op, source) in sources() {
        checked(op, source);
    }
    assert!(sources().count() > 0, "the build has no sources");
}

#[test]
fn every_source_follows_the_interface_of_its_contract() {
    for (op, source) in sources() {
        let (module, _) = checked(op, source);
        let fail = |what: String| panic!("{} {}: {what}", op.name, source.name);
        for (_, variable) in module.global_variables.iter() {
            let Some(binding) = variable.binding else { continue };
            let name = variable.name.as_deref();
            let kind = &module.types[variable.ty].inner;
            if binding.group != 0 {
                fail(format!("{name:?} is in group {}", binding.group));
            }
            match binding.binding {
                PARAMS_BINDING => {
                    let TypeInner::Struct { members, span } = kind else { panic!("Params is no struct") };
                    let found: Vec<&str> = members.iter().map(|m| m.name.as_deref().unwrap_or("")).collect();
                    let expected = parameters(op);
                    let same = found.len() == expected.len();
                    if !same || !found.iter().zip(&expected).all(|(f, e)| is_named(Some(*f), e)) {
                        fail(format!("Params has {found:?}, expected {expected:?}"));
                    }
                    let words = members.iter().zip(0..).all(|(m, at)| m.offset == 4 * at);
                    if !words || *span < 4 * members.len() as u32 || *span > 256 {
                        fail("Params has a member that is not 32 bits".to_owned());
                    }
                    if variable.space != AddressSpace::Uniform {
                        fail("Params is not a uniform".to_owned());
                    }
                }
                at => {
                    let read_write = StorageAccess::LOAD | StorageAccess::STORE;
                    if variable.space != (AddressSpace::Storage { access: read_write }) {
                        fail(format!("{name:?} is not var<storage, read_write>"));
                    }
                    let expected = match at {
                        WORK_BINDING => ("work", DType::U32),
                        at => {
                            let arg = op.args.get(at as usize);
                            let arg = arg.unwrap_or_else(|| panic!("{} {}: binding {at}", op.name, source.name));
                            let dtype = source.only.map_or(arg.dtypes[0], |only| arg.dtype_beside(only));
                            (arg.name, dtype)
                        }
                    };
                    if !is_named(name, expected.0) {
                        fail(format!("binding {at} is {name:?}, expected {}", expected.0));
                    }
                    let TypeInner::Array { base, .. } = kind else { panic!("{name:?} is no array") };
                    let scalar = module.types[*base].inner.scalar();
                    let float_bytes = match expected.1 {
                        DType::F32 => Some(4),
                        DType::F16 if source.needs.contains(&GpuFeature::F16) => Some(2),
                        _ => None,
                    };
                    if scalar.filter(|s| s.kind == ScalarKind::Float).map(|s| s.width) != float_bytes {
                        fail(format!("{name:?} has elements of another type than {:?}", expected.1));
                    }
                }
            }
        }
        let entries: Vec<&str> = module.entry_points.iter().map(|entry| entry.name.as_str()).collect();
        for dispatch in source.dispatches {
            if !entries.contains(&dispatch.entry) {
                fail(format!("has no entry point {}, only {entries:?}", dispatch.entry));
            }
        }
        let unused: Vec<_> = entries.iter().filter(|e| source.dispatches.iter().all(|d| d.entry != **e)).collect();
        if !unused.is_empty() {
            fail(format!("never launches {unused:?}"));
        }
        for entry in &module.entry_points {
            if entry.workgroup_size.iter().product::<u32>() > 256 {
                fail(format!("{} has more than 256 invocations", entry.name));
            }
        }
        let shared: u32 = module
            .global_variables
            .iter()
            .filter(|(_, v)| v.space == AddressSpace::WorkGroup)
            .map(|(_, v)| module.types[v.ty].inner.size(module.to_ctx()))
            .sum();
        if shared > 16 << 10 {
            fail(format!("uses {shared} bytes of workgroup memory, the default limit is 16384"));
        }
    }
}

#[test]
fn every_source_translates_for_metal_and_direct3d() {
    for (op, source) in sources() {
        let (module, info) = checked(op, source);
        // Subgroups and 16-bit floats came later than the first versions of these languages.
        let metal =
            naga::back::msl::Options { fake_missing_bindings: true, lang_version: (2, 1), ..Default::default() };
        let metal = naga::back::msl::write_string(&module, &info, &metal, &Default::default());
        assert!(metal.is_ok(), "{} {}: {metal:?}", op.name, source.name);
        let model = naga::back::hlsl::ShaderModel::V6_2;
        let options = naga::back::hlsl::Options { shader_model: model, ..Default::default() };
        let (pipeline, mut text) = (Default::default(), String::new());
        let mut writer = naga::back::hlsl::Writer::new(&mut text, &options, &pipeline);
        let direct3d = writer.write(&module, &info, None).map(|_| ());
        assert!(direct3d.is_ok(), "{} {}: {direct3d:?}", op.name, source.name);
        let options = naga::back::spv::Options { lang_version: (1, 3), ..Default::default() };
        let vulkan = naga::back::spv::write_vec(&module, &info, &options, None);
        assert!(vulkan.is_ok(), "{} {}: {vulkan:?}", op.name, source.name);
    }
}

/// Storage bindings that an entry point or anything it calls touches.
fn touched(module: &Module, info: &ModuleInfo, entry: &str) -> Vec<u32> {
    let at = module.entry_points.iter().position(|e| e.name == entry).expect("an entry point");
    let used = module.global_variables.iter().filter(|(handle, variable)| {
        matches!(variable.space, AddressSpace::Storage { .. }) && !info.get_entry_point(at)[*handle].is_empty()
    });
    used.filter_map(|(_, variable)| variable.binding).map(|binding| binding.binding).collect()
}

/// WebGPU's default: 8 storage buffers. What a dispatch binds is what its source declares for it.
#[test]
fn every_dispatch_binds_what_it_touches_and_at_most_eight() {
    for (op, source) in sources() {
        let (module, info) = checked(op, source);
        let count = source.dispatches.len();
        assert!(source.uses.is_none_or(|uses| uses.len() == count), "{} {}: a list for each", op.name, source.name);
        for (nth, dispatch) in source.dispatches.iter().enumerate() {
            let what = || format!("{} {}, {}", op.name, source.name, dispatch.entry);
            let bound = source.bindings(op.args.len(), nth);
            assert!(bound.len() <= MAX_BINDINGS, "{}: binds {bound:?}, more than {MAX_BINDINGS}", what());
            let touched = touched(&module, &info, dispatch.entry);
            let missing: Vec<_> = touched.iter().filter(|binding| !bound.contains(binding)).collect();
            assert!(missing.is_empty(), "{}: touches {missing:?}, binds {bound:?}", what());
        }
    }
}

/// Arguments that overlap are bound once, and the text reads both from one variable. Nothing with elements may hide a
/// variable, or the text would be changed where it means something else.
#[test]
fn every_source_can_read_one_argument_through_another() {
    let mut tried = 0;
    for (op, source) in sources() {
        let (module, info) = checked(op, source);
        let mut arrays = BTreeMap::new();
        for (_, v) in module.global_variables.iter().filter(|(_, v)| matches!(v.space, AddressSpace::Storage { .. })) {
            arrays.insert(v.binding.as_ref().expect("bound").binding, (v.name.clone().expect("named"), v.ty));
        }
        let names: BTreeSet<&str> = arrays.values().map(|(name, _)| name.as_str()).collect();
        let functions = module.functions.iter().map(|(handle, f)| (f, &info[handle]));
        let entries = module.entry_points.iter().enumerate().map(|(at, e)| (&e.function, info.get_entry_point(at)));
        for (function, about) in functions.chain(entries) {
            let locals = function.local_variables.iter().map(|(_, l)| (l.name.as_deref(), &module.types[l.ty].inner));
            let args = function.arguments.iter().map(|a| (a.name.as_deref(), &module.types[a.ty].inner));
            let named = function.named_expressions.iter();
            let named = named.map(|(handle, n)| (Some(n.as_str()), about[*handle].ty.inner_with(&module.types)));
            // Numbers have no elements.
            let hides = locals.chain(args).chain(named).find(|(name, ty)| {
                name.is_some_and(|name| names.contains(name)) && !matches!(ty, TypeInner::Scalar(_))
            });
            assert!(hides.is_none(), "{} {}: {hides:?} hides an argument", op.name, source.name);
        }
        for (from, (name, ty)) in &arrays {
            assert_eq!(variable(source.text, *from), Some(name.as_str()), "{} {}", op.name, source.name);
            for (to, _) in arrays.iter().filter(|(to, (_, other))| *to < from && *from != WORK_BINDING && other == ty) {
                let text = shared(source.text, &[(*from, *to)]);
                let module = naga::front::wgsl::parse_str(&text)
                    .unwrap_or_else(|e| panic!("{} {}:\n{}", op.name, source.name, e.emit_to_string(&text)));
                let info = Validator::new(ValidationFlags::all(), Capabilities::all()).validate(&module);
                let info = info.unwrap_or_else(|e| panic!("{} {}:\n{}", op.name, source.name, e.emit_to_string(&text)));
                for dispatch in source.dispatches {
                    let touched = touched(&module, &info, dispatch.entry);
                    assert!(!touched.contains(from), "{} {}: {name} is used in another way", op.name, source.name);
                }
                tried += 1;
            }
        }
    }
    assert!(tried > 400, "{tried} pairs");
}

/// The front end of Chrome, which refuses other things than naga.
#[test]
fn every_source_passes_tint() {
    if let Err(error) = Command::new("tint").arg("--help").output() {
        let required = std::env::var("REQUIRE").unwrap_or_default();
        assert!(!required.split(',').any(|name| name.trim() == "tint"), "REQUIRE names tint: {error}");
        // The harness keeps what `eprint!` writes.
        let _ = std::io::stderr().write_all(format!("not run: tint over the shader sources ({error})\n").as_bytes());
        return;
    }
    let folder = std::env::temp_dir().join(format!("tsn-tint-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let path = folder.join("source.wgsl");
    let accepts = |text: &str| {
        std::fs::write(&path, text).expect("a file");
        let output =
            Command::new("tint").args(["--format", "wgsl", "-o"]).arg(folder.join("out.wgsl")).arg(&path).output();
        let output = output.expect("tint runs");
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    for (op, source) in sources() {
        // naga knows subgroups without this line and refuses it.
        let enable = if source.needs.contains(&GpuFeature::Subgroups) { "enable subgroups;\n" } else { "" };
        let (passes, why) = accepts(&format!("{enable}{}", source.text));
        assert!(passes, "{} {}:\n{why}", op.name, source.name);
    }
    assert!(!accepts("fn f() -> u32 { return 1.5; }").0, "tint accepts anything");
    std::fs::remove_dir_all(&folder).expect("removed");
}

/// Sources share functions by repeating them: one name, one text.
#[test]
fn functions_of_one_name_are_the_same_everywhere() {
    let mut bodies: BTreeMap<&str, (&str, &str)> = BTreeMap::new();
    for (op, source) in sources() {
        let parts: Vec<&str> = source.text.split("\nfn ").collect();
        // Entry points, the functions with attributes above them, are the op's own.
        let shared = parts.windows(2).filter(|two| !two[0].lines().next_back().is_some_and(|l| l.starts_with('@')));
        for text in shared.map(|two| two[1]) {
            let name = text.split('(').next().unwrap_or("");
            let end = text.find("\n}").unwrap_or(text.len());
            let (first, known) = bodies.entry(name).or_insert((op.name, &text[..end]));
            assert!(*known == &text[..end], "{name} differs between {first} and {}", op.name);
        }
    }
}
