/// What one roast looks like. Ranges are drawn from, per bean; colours are sRGB from 0 to 255.
#[derive(Clone, Copy, Debug)]
pub(super) struct Roast {
    pub(super) label: &'static str,
    /// A bean's colour lies between these two.
    pub(super) colors: [[f32; 3]; 2],
    /// Strength of the highlight: raw beans are matt, dark ones have oil on them.
    pub(super) gloss: [f32; 2],
    /// How sharp the highlight is: the exponent of Blinn and Phong's model.
    pub(super) polish: [f32; 2],
    /// How much of the pale silverskin is left in the crease and on the surface, from 0 to 1.
    pub(super) silverskin: [f32; 2],
    /// Depth of the wrinkles.
    pub(super) wrinkles: [f32; 2],
    /// How uneven the colour is.
    pub(super) mottling: [f32; 2],
}

/// In the order of the class folders, which is that of their names.
pub(super) const ROASTS: [Roast; 4] = [
    Roast {
        label: "Dark",
        colors: [[46.0, 31.0, 24.0], [72.0, 48.0, 34.0]],
        gloss: [0.10, 0.42],
        polish: [18.0, 60.0],
        silverskin: [0.0, 0.22],
        wrinkles: [0.2, 0.7],
        mottling: [0.08, 0.22],
    },
    Roast {
        label: "Green",
        colors: [[128.0, 132.0, 92.0], [172.0, 166.0, 122.0]],
        gloss: [0.02, 0.10],
        polish: [6.0, 16.0],
        silverskin: [0.35, 1.0],
        wrinkles: [0.1, 0.5],
        mottling: [0.05, 0.16],
    },
    Roast {
        label: "Light",
        colors: [[150.0, 100.0, 56.0], [178.0, 124.0, 74.0]],
        gloss: [0.03, 0.14],
        polish: [8.0, 20.0],
        silverskin: [0.4, 1.0],
        wrinkles: [0.4, 1.0],
        mottling: [0.10, 0.26],
    },
    Roast {
        label: "Medium",
        colors: [[92.0, 57.0, 34.0], [118.0, 75.0, 44.0]],
        gloss: [0.04, 0.22],
        polish: [10.0, 32.0],
        silverskin: [0.15, 0.7],
        wrinkles: [0.3, 0.9],
        mottling: [0.08, 0.24],
    },
];
