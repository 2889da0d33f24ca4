//! Fits a VGG network to a folder of labelled pictures.
