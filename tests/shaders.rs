//! Every shader parses and validates, and its uniform structs lie in memory as their Rust twins do. No GPU is needed.

use boxwright::render::{ShaderLibrary, twins};
use naga::valid::{Capabilities, ValidationFlags, Validator};

/// Parses a shader with its imports; the message of a failure names file and line.
fn parse(library: &ShaderLibrary, name: &str) -> naga::Module {
    let assembled = library.assemble(name).unwrap_or_else(|error| panic!("{error}"));
    match naga::front::wgsl::parse_str(&assembled.text) {
        Ok(module) => module,
        Err(error) => {
            let origin = error.location(&assembled.text).and_then(|at| assembled.origin(at.line_number));
            panic!("{name} at {origin:?}: {}", error.emit_to_string(&assembled.text));
        }
    }
}

#[test]
fn every_shader_is_valid_without_optional_features() {
    let library = ShaderLibrary::default();
    let names = library.names();
    assert!(names.len() >= 8, "{names:?}");
    for name in names {
        let module = parse(&library, name);
        let mut validator = Validator::new(ValidationFlags::all(), Capabilities::empty());
        if let Err(error) = validator.validate(&module) {
            let text = library.assemble(name).unwrap().text;
            panic!("{name}: {}", error.emit_to_string(&text));
        }
    }
}

#[test]
fn uniform_structs_lie_as_their_twins_in_rust() {
    let library = ShaderLibrary::default();
    let twins = twins();
    assert!(twins.len() >= 8);
    for twin in twins {
        let module = parse(&library, twin.shader);
        let found = module.types.iter().find_map(|(_, kind)| match &kind.inner {
            naga::TypeInner::Struct { members, span } if kind.name.as_deref() == Some(twin.name) => {
                Some((members.clone(), *span))
            }
            _ => None,
        });
        let (members, span) = found.unwrap_or_else(|| panic!("{} has no struct {}", twin.shader, twin.name));
        assert_eq!(span as usize, twin.size, "size of {}", twin.name);
        let members: Vec<(String, usize)> = members
            .iter()
            .map(|member| (member.name.clone().unwrap_or_default(), member.offset as usize))
            .filter(|(name, _)| !name.starts_with("padding"))
            .collect();
        let expected: Vec<(String, usize)> =
            twin.members.iter().map(|&(name, offset)| (name.to_owned(), offset)).collect();
        assert_eq!(members, expected, "members of {}", twin.name);
    }
}

#[test]
fn every_uniform_fits_the_smallest_devices() {
    // OpenGL ES 3.0 and WebGL2 promise 16 KiB for one uniform.
    for twin in twins() {
        assert!(twin.size <= 16 << 10, "{} has {} bytes", twin.name, twin.size);
        assert_eq!(twin.size % 16, 0, "{} must end on 16 bytes", twin.name);
    }
}
