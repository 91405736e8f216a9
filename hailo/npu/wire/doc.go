// Package wire is the protocol between the service (the host) and a worker process that holds the
// device: hailo-clip-npu (C++, ../worker) or the simulated chip (package sim). It knows messages and
// how frames lie in the shared memory, and nothing of the backend.
//
// The worker inherits two descriptors:
//
//   - 3: its end of a SOCK_SEQPACKET socketpair. One packet is one message.
//   - 4: a memfd with the slots that frames are in. The worker maps it whole, shared, read and
//     write; its size is in open. The host never shrinks it.
//
// All numbers are little-endian. Every message has one fixed size, so in C++ it is a struct
// without padding (all members lie on their natural alignment; assert the size). Texts are
// UTF-8 in fixed fields, filled with NUL; the last byte of a field is always NUL. Reserved
// fields are 0 and not looked at. Offsets are from the start of the packet, in bytes; at 0 is
// u32 type, at 4 u32 size of the whole message, both in every message:
//
//	type  name      from    size   body
//	1     open      host      152  8 u32 magic; 12 u32 version; 16 u64 bytes of the memfd;
//	                               24 char device[64], "" = the only one; 88 char group[64]
//	17    hello     worker    440  8 u32 magic; 12 u32 version; 16 i32 status; 20 u32 simulated (0, 1);
//	                               24 char runtime[32], "5.2.0"; 56 char device[64];
//	                               120 char architecture[32];
//	                               152 char firmware[32], of the chip; 184 char text[256]
//	2     load      host     1104  8 u32 model; 12 u32 batch; 16 u32 threshold; 20 u32 timeout in ms;
//	                               24 u32 priority; 28 u32 input format; 32 u32 output format;
//	                               36 u32 slots; 40 u64 input offset; 48 u64 input stride;
//	                               56 u64 output offset; 64 u64 output stride; 72 u64 reserved;
//	                               80 char hef[1024]
//	18    loaded    worker    344  8 u32 model; 12 i32 status; 16 u32 queue depth; 20 u32 reserved;
//	                               24 stream input; 56 stream output; 88 char text[256]
//	      stream                32  0 u32 height; 4 u32 width; 8 u32 features; 12 u32 format;
//	                               16 u32 frame bytes; 20 f32 scale;
//	                               24 f32 zero point; 28 u32 reserved
//	3     submit    host       32  8 u32 model; 12 u32 slot; 16 u64 sequence; 24 u32 threshold; 28 u32 reserved
//	19    done      worker     40  8 u32 model; 12 u32 slot; 16 u64 sequence; 24 i32 status;
//	                               28 u32 batch; 32 u64 device ns
//	20    stats     worker     64  8 u64 frames done; 16 f32 temperature[2] in degrees C;
//	                               24 f32 NN core %; 28 f32 chip CPU %; 32 u64 memory bytes; 40 u64 memory used;
//	                               48 u32 zone; 52 u32 throttling; 56 u32 overcurrent; 60 u32 CRC errors
//
// magic is [Magic], version is [Version]. model: 0 image, 1 text. format: 0 as the HEF has it
// (only in load), 1 UINT8, 2 UINT16, 3 FLOAT32. status is a hailo_status by number, 0 success;
// the host knows the names. text is one line for a person when status is not 0.
//
// The order: open, hello; then load, loaded for each model; then submit and done, many at once
// and in any order, until the host has closed its side of the socket.
//
//   - open and hello keep their first 16 bytes in every version. A worker that does not know
//     the version says hello with its own and exits.
//   - hello with a status: the device could not be opened. loaded with a status: the model
//     could not. The worker says so and exits with 1; so it does when it cannot go on later,
//     after answering what it can. The host starts it again.
//   - load: the file at hef; batch, threshold, timeout and priority go to the scheduler as they
//     are. Slot s (0 <= s < slots) has its input at input offset + s * input stride and its
//     output at output offset + s * output stride; offsets and strides are multiples of the page
//     size. The stride bounds the frame: a worker whose frames are larger answers loaded with 5
//     (HAILO_INSUFFICIENT_BUFFER). The worker refuses what does not lie within the memfd.
//   - loaded: shape, format and size of a frame after the requested formats were set. value =
//     scale * (q - zero point), unless it is FLOAT32, which the worker gives for format 0 also where
//     one scale is not that of all features. A frame is its rows one after the other.
//   - submit: the host has filled the input of the slot and cleared what it will read of the output,
//     and touches neither side of it until done. Never more in flight for a model than its queue depth, and never a slot twice. The
//     worker takes every submit at once from the socket or lets it wait there, as it likes. threshold, 1 to batch, goes to the
//     scheduler before the frame where it is not what the model has: so many frames must wait before a run begins, or the timeout
//     of load pass. All frames of a group come one after the other with their number as threshold: then they run together. A
//     scheduler that refuses a threshold keeps the one it has.
//   - done: exactly one for each submit, with its model, slot and sequence; the output is in
//     the slot. sequence is the host's and never repeats, not even over workers. batch is the
//     number of frames that ran together and device ns the time of that run, both 0 if unknown.
//   - stats: about every second from the first hello on, also while nothing runs. A number that the device
//     does not tell is NaN (f32) or 0. zone: 0 green, 1 orange, 2 red. throttling: 0 none ...
//     5 streams off, 6 overheat. overcurrent: 0 or 1. CRC errors: since the worker started.
//   - The end of the socket: the worker lets go of the device in the safe order and exits with 0,
//     or with 3 where the chip does not answer or it takes more than 5 s. The host closes only its side at first, so as to hear
//     the last answers, and kills a worker that takes too long; a killed one leaves objects behind
//     in the chip's server. SIGINT and SIGTERM are ignored: a terminal and systemd
//     send them to the worker too, while the host still drains.
//   - Whoever gets a packet that breaks these rules treats the other side as broken: the worker
//     exits, the host ends the worker.
//
// The worker writes what a person may want to know to stderr, in lines; the host logs them.
package wire
