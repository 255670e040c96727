//! What a tenant serves, be it its own or of the build, as far as more than one part asks for it.

use hearth_wire::{FunctionPath, FunctionVersion, HandlerKind, ModuleDigest, OptionsPatch};
use jiff::Timestamp;

use crate::store::VersionRow;

/// A function as a tenant serves it, be it its own or bundled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Served {
    pub path: FunctionPath,
    pub version: FunctionVersion,
    pub sha256: ModuleDigest,
    /// Bytes of the module, unpacked.
    pub size: u64,
    /// Bytes that it takes on disk.
    pub stored: u64,
    pub kind: HandlerKind,
    pub imports: Vec<String>,
    /// What the module says of itself.
    pub declared: OptionsPatch,
    /// What came with the upload, or what the bundle says.
    pub uploaded: OptionsPatch,
    /// What was set for the function since.
    pub set: OptionsPatch,
    /// It would be the root, and another function is.
    pub yields: bool,
    /// `None` of what is bundled.
    pub created_at: Option<Timestamp>,
    pub created_by: String,
}

impl Served {
    /// All layers, the one set last on top.
    pub fn options(&self) -> OptionsPatch {
        let all = OptionsPatch::of_layers(&self.declared, &self.uploaded, &self.set);
        if self.yields { all.without_root() } else { all }
    }

    pub fn is_bundled(&self) -> bool {
        self.version.is_bundled()
    }
}

impl From<VersionRow> for Served {
    fn from(row: VersionRow) -> Self {
        let VersionRow {
            path,
            version,
            sha256,
            size,
            stored,
            kind,
            imports,
            declared,
            uploaded,
            set,
            created_at,
            created_by,
        } = row;
        Self {
            path,
            version: version.into(),
            sha256,
            size,
            stored,
            kind,
            imports,
            declared,
            uploaded,
            set,
            yields: false,
            created_at: Some(created_at),
            created_by,
        }
    }
}

/// The one of that path, however it is written.
pub fn one<'a>(served: &'a [Served], path: &FunctionPath) -> Option<&'a Served> {
    let folded = path.folded();
    served.iter().find(|function| function.path.folded() == folded)
}
