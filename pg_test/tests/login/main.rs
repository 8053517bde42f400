//! Logins from outside: real servers, real clients. One program, so that it is linked once.

mod access;
mod board;
mod constant_line;
mod crashes;
mod doctor;
mod document;
mod door;
mod explain;
mod faults;
mod floods;
mod guarded_file;
mod hba_lines;
mod issuer_faults;
mod keys;
mod libraries;
mod mended;
mod policy;
mod providers;
mod readme;
mod scene;
mod script;
mod session;
mod stage;
mod tokens;
