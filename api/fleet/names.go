package fleet

// Subjects. A * stands for the name of a node, for a job or for a shard.
const (
	loadSubject   = "clip.v1.load." // + node: Load, five times a second
	encodeSubject = "clip.v1.enc."  // + node + ".image": one image, answered by its vector
	bulkSubject   = "clip.v1.bulk." // + bulk.Short of the encoder's digest + "." + job + "." + shard: images to be encoded
	resultSubject = "clip.v1.res."  // + job + "." + shard: what came of them
	deadSubject   = "clip.v1.dead." // + job: images that no node could encode
)

// Streams, buckets of keys and values, and object stores.
const (
	BulkStream   = "CLIP_BULK"   // images that wait for a worker
	ResultStream = "CLIP_RES"    // what came of them, until it is stored
	DeadStream   = "CLIP_DEAD"   // ids of images that were tried too often, and why
	JobBucket    = "clip_jobs"   // state of each job
	SetBucket    = "clip_sets"   // prompt sets
	TextBucket   = "clip_text"   // vectors of texts
	CameraBucket = "clip_cams"   // streams that are wanted
	InputStore   = "clip_in"     // images too large for a message
	SetStore     = "clip_set"    // prompt sets too large for a message
	ModelStore   = "clip_models" // model files
)

// Headers of messages.
const (
	headerDeadline = "Clip-Deadline-Ms" // what is left of the time for the answer, in milliseconds
	headerModel    = "Clip-Model"       // digest of the image encoder
	headerPrep     = "Clip-Prep"        // clip.Engine.Preparation
	headerNode     = "Clip-Node"        // who asks
	headerKey      = "Clip-Key"         // bulk.Key of the image
	headerContent  = "Clip-Content"     // beginning of the hex SHA-256 of what is sent, where that is another image than the key's
	headerObject   = "Clip-Object"      // name of the image in InputStore; the message has no body then
	headerError    = "Clip-Error"       // why there is no vector, as a code
)
