//! Smaller networks without gradients, from what the network computes on training pictures: channels that the next layer
//! can do without are removed, and what is left is refitted by least squares.
//!
//! [`observation`] is one pass through the network (the teacher) and says for each layer what the next one loses where
//! only so many channels are kept. [`refit`] then goes through the layers once more, each behind the ones that are
//! smaller already: it chooses channels ([`selection`]) and writes what the next layer took from all of them as a
//! combination of the kept ones ([`least_squares`]), so that errors do not add up. [`factorisation`] makes two of a
//! dense layer whose outputs differ in few directions. [`strength`] finds how far to go.

pub(crate) mod factorisation;
pub(crate) mod junction;
pub(crate) mod least_squares;
pub(crate) mod observation;
pub(crate) mod refit;
pub(crate) mod report;
pub(crate) mod selection;
pub(crate) mod strength;
