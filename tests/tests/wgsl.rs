//! Shader sources without a GPU: every file parses, validates within WebGPU's default limits, follows the interface of
//! its contract, and translates to the languages of other drivers.

use kernels::contract::wgsl::{PARAMS_BINDING, WORK_BINDING, parameters};
use kernels::{Contract, DType, OPS, Wgsl};
use naga::valid::{Capabilities, ModuleInfo, ValidationFlags, Validator};
use naga::{AddressSpace, Module, ScalarKind, StorageAccess, TypeInner};
use std::collections::BTreeMap;

fn sources() -> impl Iterator<Item = (&'static Contract, &'static Wgsl)> {
    OPS.iter().flat_map(|op| op.wgsl.iter().map(move |source| (*op, source)))
}

fn checked(op: &Contract, source: &Wgsl) -> (Module, ModuleInfo) {
    let what = || format!("{} {}", op.name, source.name);
    let module = naga::front::wgsl::parse_str(source.text)
        .unwrap_or_else(|error| panic!("{}:\n{}", what(), error.emit_to_string(source.text)));
    let capabilities = match source.needs {
        Some(kernels::GpuFeature::Subgroups) => Capabilities::SUBGROUP,
        Some(kernels::GpuFeature::F16) => Capabilities::SHADER_FLOAT16,
        None => Capabilities::empty(),
    };
    let info = Validator::new(ValidationFlags::all(), capabilities)
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
                            let dtype = source.only.filter(|_| arg.dtypes.len() > 1).unwrap_or(arg.dtypes[0]);
                            (arg.name, dtype)
                        }
                    };
                    if !is_named(name, expected.0) {
                        fail(format!("binding {at} is {name:?}, expected {}", expected.0));
                    }
                    let TypeInner::Array { base, .. } = kind else { panic!("{name:?} is no array") };
                    let float = module.types[*base].inner.scalar_kind() == Some(ScalarKind::Float);
                    if float != (expected.1 == DType::F32) {
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
    for (op, source) in sources().filter(|(_, s)| s.needs.is_none()) {
        let (module, info) = checked(op, source);
        let metal = naga::back::msl::write_string(
            &module,
            &info,
            &naga::back::msl::Options { fake_missing_bindings: true, ..Default::default() },
            &Default::default(),
        );
        assert!(metal.is_ok(), "{} {}: {metal:?}", op.name, source.name);
        let (options, pipeline) = (Default::default(), Default::default());
        let mut text = String::new();
        let mut writer = naga::back::hlsl::Writer::new(&mut text, &options, &pipeline);
        let direct3d = writer.write(&module, &info, None).map(|_| ());
        assert!(direct3d.is_ok(), "{} {}: {direct3d:?}", op.name, source.name);
        let vulkan = naga::back::spv::write_vec(&module, &info, &Default::default(), None);
        assert!(vulkan.is_ok(), "{} {}: {vulkan:?}", op.name, source.name);
    }
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
