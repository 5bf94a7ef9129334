//! `larum rules format`: rule files in their canonical form, see [`crate::rules::format`].

use crate::promql::Syntax;
use crate::rules::format::{self, FormatOptions};
use crate::yaml::{self, FileError};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// How files are written anew.
#[derive(Debug, Clone, clap::Args)]
pub struct RuleFormat {
    /// Rule files.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Only name the files that are not in this form, and exit with 1 if there is any.
    #[arg(long, conflicts_with = "write")]
    check: bool,
    /// Replace the files that are not in this form, and name them.
    #[arg(long)]
    write: bool,
    /// Print expressions anew too. Comments and line breaks within them are lost.
    #[arg(long)]
    expressions: bool,
}

/// Formats the files.
pub fn run(what: &RuleFormat, syntax: Syntax) -> ExitCode {
    let mut out = io::stdout().lock();
    let mut exit = ExitCode::SUCCESS;
    for file in &what.files {
        match format_file(what, file, syntax, &mut out) {
            Ok(true) => {}
            Ok(false) => exit = ExitCode::FAILURE,
            Err(error) => {
                eprintln!("{error}");
                exit = ExitCode::FAILURE;
            }
        }
    }
    exit
}

/// Whether all is well.
fn format_file(
    what: &RuleFormat,
    path: &Path,
    syntax: Syntax,
    out: &mut impl Write,
) -> Result<bool, FileError> {
    let fault = |e: io::Error| FileError::of_file(path, e);
    let text = yaml::read_text(path)?;
    let options = FormatOptions { syntax, expressions: what.expressions };
    let formatted = format::format(path, &text, options)?;
    formatted.warnings.iter().for_each(|warning| eprintln!("warning: {warning}"));
    let is_changed = formatted.text != text;
    if what.write && is_changed {
        replace(path, formatted.text.as_bytes()).map_err(fault)?;
    }
    if what.check || what.write {
        if is_changed {
            writeln!(out, "{}", path.display()).map_err(fault)?;
        }
        return Ok(what.write || !is_changed);
    }
    out.write_all(formatted.text.as_bytes()).map_err(fault)?;
    Ok(true)
}

/// Puts `bytes` in the place of the file, which a server may read at any time: it is the old or the new one.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    // A link stays one.
    let path = fs::canonicalize(path)?;
    let folder = path.parent().unwrap_or(Path::new("/"));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = folder.join(format!(".{name}.{}.tmp", std::process::id()));
    let written = (|| {
        let mut file = File::create_new(&temporary)?;
        file.set_permissions(fs::metadata(&path)?.permissions())?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, &path)
    })();
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written
}
