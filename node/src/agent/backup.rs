//! `arc-relay backup FILE`: the registry of a running relay, into an encrypted file.

use std::path::PathBuf;

use serde_json::json;

use super::{admin::AdminArgs, failure::Failure, output::Output, progress::Progress};
use crate::backup::WholeFile;

/// Options of a backup.
#[derive(clap::Args, Clone, Debug)]
#[allow(clippy::doc_markdown)] // field comments are the help text, shown as they stand
pub struct BackupArgs {
    /// The file to write, readable by you alone; encrypted with the relay's CLUSTER_SECRET
    #[arg(value_name = "FILE")]
    pub file: PathBuf,

    /// Take it from the data directory of a relay that is stopped; CLUSTER_SECRET must be set
    #[arg(long, value_name = "DATA_DIR")]
    pub offline: Option<PathBuf>,

    /// Replace the file if there is one
    #[arg(long)]
    pub force: bool,

    #[command(flatten)]
    admin: AdminArgs,
}

pub(super) async fn run(args: &BackupArgs, output: &mut Output) -> Result<(), Failure> {
    let path = &args.file;
    let failed = |source| Failure::Write { path: path.clone(), source };
    if path.exists() && !args.force {
        return Err(Failure::Exists(path.clone()));
    }
    let mut file = WholeFile::create(path).map_err(failed)?;
    let progress = Progress::open("backup");
    let mut bytes = 0;
    args.admin
        .download("/backup", |some| {
            bytes += some.len();
            progress.add(some.len());
            file.write(some).map_err(failed)
        })
        .await?;
    file.finish().map_err(failed)?;
    drop(progress);
    let told = if args.admin.ops.json {
        json!({"file": path.display().to_string(), "bytes": bytes}).to_string()
    } else {
        format!("wrote {} ({bytes} bytes)", path.display())
    };
    output.result(&told).await
}
