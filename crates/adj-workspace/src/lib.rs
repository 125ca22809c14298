//! Private git workspaces: made cheaply, brought out as commits, compared, merged, landed on the user's branch, and never lost.
//!
//! Must not know: agents, models, sessions, or why a workspace is wanted.
//! Start at [`Workspaces`]; a [`Repository`] is the user's, a [`Workspace`] is somebody's private tree of one commit.
//!
//! Two rules hold everywhere. The user's repository is changed only by [`Workspaces::publish`], [`Workspaces::land`] and refs below
//! `refs/adjutant/`. And no program on the host ever opens a git folder that an agent could write to: what an agent did is turned into objects
//! inside the sandbox, by a git folder of ours, and taken in as data.

mod authorship;
mod id;

mod alternates;
mod files;
mod git;

mod repository;
mod store;

mod tree;
mod workspaces;

mod confined;
mod everything;
mod gather;
mod remove;
mod snapshot;

mod diff;
mod fingerprint;
mod merge;

mod dirty;
mod land;
mod publish;
mod refs;
mod work_tree;

pub use authorship::{Authorship, Person};
pub use confined::ConfinedError;
pub use diff::{Change, ChangedPath, Diff};
pub use dirty::{Dirtiness, DirtySnapshot, DirtySnapshotError, Paths};
pub use files::FileError;
pub use fingerprint::fingerprint;
pub use gather::GatherError;
pub use git::{FindGitError, Git, GitError};
pub use id::{CommitId, Name, ParseNameError, ParseObjectIdError, TreeId};
pub use land::{LandError, Landed};
pub use merge::{Conflict, Merge, MergeError, MergeRequest};
pub use publish::{PublishError, TransferError};
pub use remove::{RemoveError, Removed, Swept};
pub use repository::{Head, OpenRepositoryError, Repository};
pub use snapshot::{Snapshot, SnapshotError};
pub use store::{ImportError, StoreError};
pub use tree::MaterialiseError;
pub use work_tree::WorkTreeError;
pub use workspaces::{FindWorkspaceError, Layout, OpenWorkspacesError, PrepareError, Workspace, Workspaces};
