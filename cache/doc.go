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
// A flight is one prompt on its way. However many requests ask for it, it is encoded once. A
// caller whose context ends leaves; the flight goes on for the others and is given up when
// nobody is left. The encoder goroutines take what is queued, up to the batch size, without a
// timer. Errors are handed to those who waited and are not kept.
//
// # No wrong vector
//
// Look-ups in memory are by a 64-bit hash with a random seed, and every hit is compared with
// the namespace and the prompt itself, byte for byte. On disk the key is the SHA-256 of
// namespace and prompt, and a value carries a checksum that covers its key, so a vector that
// damage moved under another key is a miss. Namespaces (one per text encoder) share memory and
// file and never see each other's vectors.
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
