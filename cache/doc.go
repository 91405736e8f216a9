// Package cache remembers the embedding of every prompt: in memory (ristretto), then on disk
// (bbolt), then from an encode func. It is only a cache: whatever happens to its file, prompts
// are encoded and answered.
//
// # Looking up
//
//	Get(prompts) -> the same list before? one look-up, done
//	             -> each prompt: memory, else the flight of somebody who asked first, else a
//	                new flight: disk, else the queue of the encoder
//
// A flight is one prompt on its way. However many requests ask for it, it is encoded once. The
// encoder goroutines take what is queued, up to the batch size, without a timer. When a batch
// fails, each of its prompts is tried alone, so that an error reaches only those who asked for
// its prompt; errors are not kept.
//
// # Callers
//
// The queue has a lane for each caller, and a batch is taken from the lanes in turn, so that one
// prompt does not wait behind another caller's thousand. A flight has a seat in the lane of
// everyone who waits for it. A request whose context ends takes its seats along, and flights that
// nobody waits for are given up; only a batch that others want is finished. When too many prompts
// wait, requests of the caller who has most of them are refused, see [TextEmbeddings.Get]. The
// prompts of a file ([TextEmbeddings.Precompute]) are one more caller, with one batch at a time,
// who makes nobody go.
//
// # No wrong vector
//
// All that is kept or shared, and why no caller gets another's text or vector from it:
//
//   - vectors and lists in memory: their keys are 64-bit hashes with a random seed, and can be
//     equal; so every hit is compared with namespace, dimension and the texts, byte for byte;
//   - flights: found by the prompt itself, in a map of one encoder. A batch gets a slice of its
//     own, and result i goes to flight i; another number of results is an error;
//   - the file and what is queued for it: the key is the SHA-256 of the namespace's length,
//     namespace and prompt; the dimension is compared, and the checksum of a value covers its
//     key, so that what damage moved under another key is a miss;
//   - texts: a flight clones its prompt, which may point into a body that is used again; what is
//     kept refers to that clone only;
//   - vectors: copied out of what the encode func returns and out of the file, and never written
//     to afterwards: the answers of many callers share them, see [Prompts];
//   - errors: of one prompt (above); they contain no text, and nobody else's answer.
//
// Nothing is pooled: a slice is either new or immutable. Namespaces (one per text encoder) share
// memory and file and never see each other's vectors.
//
// # The file
//
// Vectors are written behind: one goroutine writes what has gathered in one synced transaction,
// 250 ms after the first of them. A killed process loses at most that and the file stays whole.
// A file that has reached its limit is started anew with the vectors that memory holds.
// A damaged file is renamed to NAME.corrupt-TIME and an empty one is used; a file that another
// process holds, or that cannot be opened or written, leaves the cache in memory only. Each is
// logged once, as a warning, and shown in [Stats].
//
// The mapped file may fail under a reader at any time (it may be truncated from outside), so
// everything that touches the mapping runs under guard, which turns faults into errors; and
// because a fault can leave bbolt's locks held for ever, only one goroutine takes these locks.
// Readers share a read transaction that this goroutine renews after every write.
package cache
