//! Logins from outside: real servers, real clients. One program, so that it is linked once.

mod board;
mod door;
mod faults;
mod policy;
mod readme;
mod session;
mod tokens;
