//! To come.
#[derive(Debug)]
pub struct Core;
#[derive(Debug)]
pub struct Settings;
