/// Hears how far a long export is.
pub trait Progress {
    /// A stage of so many pictures begins; the one before it is over.
    fn start(&mut self, stage: &str, pictures: usize);
    /// So many more pictures of the stage are done.
    fn advance(&mut self, pictures: usize);
}

/// Keeps silent.
impl Progress for () {
    fn start(&mut self, _stage: &str, _pictures: usize) {}
    fn advance(&mut self, _pictures: usize) {}
}
