package sets

// Scenes are what a camera sees where there is nothing to name: the negative labels of Background.Auto. Each is a noun without
// an article, as templates want it.
//
// They were chosen by hand from the kinds of classes of ADE20K, COCO-Stuff and Places365: surfaces, rooms, ground, weather and
// scenery ("stuff"), and images without content. None is a thing that somebody may want to find, a part or a kind of one (no
// "sports car", which would stand against a label "car"), or a proper noun: such negatives take images that show a label
// (NegRefine, ICCV 2025, arXiv 2507.09795). None says how an image is taken (blurred, on a plain background), since a label may
// be in it. A label can still be close to one (a label "snow"): PUT warns of that.
var Scenes = []string{
	// indoors
	"blank wall", "white ceiling", "wooden floor", "tiled floor", "carpet", "concrete floor", "empty room", "empty hallway",
	"empty stairwell", "window with curtains", "window blinds", "empty shelf", "bare tabletop", "bathroom tiles", "empty office",
	"warehouse interior",
	// built, outdoors
	"brick wall", "stone wall", "facade of a building", "roof tiles", "wooden fence", "empty street", "empty parking lot",
	"asphalt road", "paved sidewalk", "empty courtyard", "city skyline",
	// ground, scenery, weather
	"lawn", "hedge", "meadow", "forest", "foliage", "gravel", "bare soil", "dirt path", "wet ground", "rocky ground", "sandy beach",
	"calm water", "mountain landscape", "clear sky", "cloudy sky", "night sky", "snow-covered ground", "thick fog",
	// no content
	"completely dark image", "overexposed image", "image of random noise", "abstract texture", "light and shadow on a wall",
}
