// The messages between hailo-clip and this worker. What they mean, and their order, is in
// ../../doc.go; ../layout_test.go compares every size, offset and constant with Go's.
#pragma once

#include <cstddef>
#include <cstdint>

namespace protocol {

constexpr uint32_t magic = 0x314e4348;
constexpr uint32_t version = 3;
constexpr uint32_t models = 2; // 0 image, 1 text
constexpr size_t max_packet = 1104;

enum Type : uint32_t { open = 1, load = 2, submit = 3, hello = 17, loaded = 18, done = 19, stats = 20 };
enum Format : uint32_t { native = 0, uint8 = 1, uint16 = 2, float32 = 3 };

struct Header {
    uint32_t type;
    uint32_t size;
};

struct Open {
    static constexpr Type kind = open;
    Header header;
    uint32_t magic, version;
    uint64_t memory;
    char device[64], group[64];
};

struct Hello {
    static constexpr Type kind = hello;
    Header header;
    uint32_t magic, version;
    int32_t status;
    uint32_t simulated;
    char runtime[32], device[64], architecture[32], firmware[32], text[256];
};

struct Load {
    static constexpr Type kind = load;
    Header header;
    uint32_t model, batch, threshold, timeout_ms, priority, input_format, output_format, slots;
    uint64_t input_offset, input_stride, output_offset, output_stride, reserved;
    char hef[1024];
};

struct Stream {
    uint32_t height, width, features, format, frame_bytes;
    float scale, zero_point;
    uint32_t reserved;
};

struct Loaded {
    static constexpr Type kind = loaded;
    Header header;
    uint32_t model;
    int32_t status;
    uint32_t queue_depth, reserved;
    Stream input, output;
    char text[256];
};

struct Submit {
    static constexpr Type kind = submit;
    Header header;
    uint32_t model, slot;
    uint64_t sequence;
    uint32_t threshold, reserved;
};

struct Done {
    static constexpr Type kind = done;
    Header header;
    uint32_t model, slot;
    uint64_t sequence;
    int32_t status;
    uint32_t batch;
    uint64_t device_ns;
};

struct Stats {
    static constexpr Type kind = stats;
    Header header;
    uint64_t frames;
    float temperature[2], nn_core, cpu;
    uint64_t memory, used;
    uint32_t zone, throttling, overcurrent, crc_errors;
};

} // namespace protocol
