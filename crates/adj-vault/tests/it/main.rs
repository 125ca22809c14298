//! The vault as others use it: on a disk, with keys in files and in a keyring.

mod damage;
mod keyring;
mod support;
mod vault;
