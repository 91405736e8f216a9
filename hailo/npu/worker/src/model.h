// A model on the device, and the slots that its frames are in.
#pragma once

#include "channel.h"
#include "runtime.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <memory>
#include <vector>

// The memory that the frames lie in.
struct Memory {
    char *data = nullptr;
    uint64_t size = 0;

    [[nodiscard]] bool holds(uint64_t offset, uint64_t stride, uint32_t slots) const
    {
        const auto page = static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
        return offset % page == 0 && stride % page == 0 && stride > 0 && offset <= size && slots <= (size - offset) / stride;
    }
};

struct Slot {
    hailort::ConfiguredInferModel::Bindings bindings; // to the pages of the slot, for good
    std::atomic<bool> busy{false};                    // submitted and not answered
};

struct Model {
    std::shared_ptr<hailort::InferModel> infer;
    hailort::ConfiguredInferModel configured; // destroyed before infer
    std::vector<Slot> slots;
    uint32_t depth = 0; // frames that the library takes at once
    uint32_t batch = 0, threshold = 1; // of the scheduler
    std::atomic<uint32_t> in_flight{0};
    bool refuses_threshold = false;
    bool failed = false; // run_async has: the library still has its job, which is answered and not in flight
};

// set_format asks for a format. Native numbers are converted by the host, which knows one scale and
// zero point for all of them; get_quant_infos() of 5.2.0 has one of zeros where there is one for each
// feature, and then the library must convert.
inline void set_format(hailort::InferModel::InferStream &stream, uint32_t format)
{
    if (format == protocol::native) {
        const auto quants = stream.get_quant_infos();
        format = quants.size() == 1 && quants[0].qp_scale > 0 ? protocol::native : protocol::float32;
    }
    if (format != protocol::native) {
        stream.set_format_type(static_cast<hailo_format_type_t>(format));
    }
}

// by_rows says whether the numbers of a frame lie in memory as the host has them: row by row, and in
// each position the features side by side.
inline bool by_rows(const hailo_format_t &format)
{
    switch (format.order) {
    case HAILO_FORMAT_ORDER_NHWC:
    case HAILO_FORMAT_ORDER_NC:
    case HAILO_FORMAT_ORDER_FCR: // this and the next differ on the chip only
    case HAILO_FORMAT_ORDER_F8CR:
        return (format.flags & HAILO_FORMAT_FLAGS_TRANSPOSED) == 0;
    default:
        return false;
    }
}

// describe puts the frames of one end of a model into the message. The format follows from the
// size of a number, whatever the library calls it.
inline void describe(const hailort::InferModel::InferStream &from, uint64_t room, protocol::Stream &to)
{
    const auto shape = from.shape();
    const auto format = from.format();
    const uint64_t frame = from.get_frame_size();
    const uint64_t numbers = uint64_t{shape.height} * shape.width * shape.features;
    const uint64_t width = numbers > 0 && frame % numbers == 0 ? frame / numbers : 0;
    const std::string what = "stream " + from.name() + ", " + std::to_string(shape.height) + "x" + std::to_string(shape.width) + "x" +
        std::to_string(shape.features) + " in " + std::to_string(frame) + " bytes";
    if (!by_rows(format)) {
        throw Failure(HAILO_NOT_SUPPORTED, what + ", in format order " + std::to_string(format.order) + ", flags " +
            std::to_string(format.flags) + "; want NHWC (1) or NC (6), not transposed");
    }
    if (frame > room) {
        throw Failure(HAILO_INSUFFICIENT_BUFFER, what + " for a slot of " + std::to_string(room));
    }
    if (width != 1 && width != 2 && width != 4) {
        throw Failure(HAILO_NOT_SUPPORTED, what);
    }
    to.height = shape.height;
    to.width = shape.width;
    to.features = shape.features;
    to.format = width == 1 ? protocol::uint8 : width == 2 ? protocol::uint16 : protocol::float32;
    to.frame_bytes = static_cast<uint32_t>(frame);
    if (const auto quants = from.get_quant_infos(); to.format != protocol::float32 && !quants.empty()) {
        to.scale = quants[0].qp_scale;
        to.zero_point = quants[0].qp_zp;
    }
}

// check_groups refuses a HEF with several network groups, of which the library would not say which it
// takes.
inline void check_groups(const std::string &hef)
{
    const auto names = take(hailort::Hef::create(hef), hef).get_network_groups_names();
    std::string all;
    for (const auto &name : names) {
        all += " " + name;
    }
    if (names.size() != 1) {
        throw Failure(HAILO_INVALID_HEF, hef + " has " + std::to_string(names.size()) + " network groups, want one:" + all);
    }
}

// set_threshold has a run begin when so many frames wait. It is a request to the chip, so only where it changes. Frames run
// without it too, in other groups: where the chip refuses it is said once, and the watchdog of the host sees a chip that is lost.
inline void set_threshold(Model &model, uint32_t threshold)
{
    if (threshold == model.threshold) {
        return;
    }
    if (const auto status = model.configured.set_scheduler_threshold(threshold); status == HAILO_SUCCESS) {
        model.threshold = threshold;
    } else if (!model.refuses_threshold) {
        model.refuses_threshold = true;
        log("set_scheduler_threshold(" + std::to_string(threshold) + "): " + Failure::name(status));
    }
}

// load_model fills in a model, and the answer, as the message asks. What it has filled in when it
// fails is let go of with the rest of the session.
inline void load_model(Model &model, hailort::VDevice &vdevice, const Memory &memory, const protocol::Load &load,
    protocol::Loaded &loaded)
{
    const std::string hef = text_of(load.hef);
    if (load.slots == 0 || !memory.holds(load.input_offset, load.input_stride, load.slots) ||
        !memory.holds(load.output_offset, load.output_stride, load.slots)) {
        throw Failure(HAILO_INVALID_ARGUMENT, "slots do not lie within the memory, on pages");
    }
    // Batch 0 would count as 1, without the runs of min(waiting, batch); 63 is the library's limit.
    if (load.batch == 0 || load.batch > 63 || load.priority > UINT8_MAX || load.input_format > protocol::float32 ||
        load.output_format > protocol::float32) {
        throw Failure(HAILO_INVALID_ARGUMENT, "batch, priority or format out of bounds");
    }
    check_groups(hef);
    model.infer = take(vdevice.create_infer_model(hef), hef);
    model.infer->set_batch_size(static_cast<uint16_t>(load.batch));
    auto input = take(model.infer->input(), hef + ": its input");
    auto output = take(model.infer->output(), hef + ": its output");
    set_format(input, load.input_format);
    set_format(output, load.output_format);
    describe(input, load.input_stride, loaded.input);
    describe(output, load.output_stride, loaded.output);

    model.configured = take(model.infer->configure(), "configure " + hef);
    // Threshold and timeout are 0 in the library when nobody sets them.
    if (load.threshold > 0) {
        check(model.configured.set_scheduler_threshold(load.threshold), "set_scheduler_threshold");
    }
    if (load.timeout_ms > 0) {
        check(model.configured.set_scheduler_timeout(std::chrono::milliseconds(load.timeout_ms)), "set_scheduler_timeout");
    }
    check(model.configured.set_scheduler_priority(static_cast<uint8_t>(load.priority)), "set_scheduler_priority");
    model.batch = load.batch;
    model.threshold = std::max(load.threshold, uint32_t{1}); // 0 and 1 are the same
    model.depth = static_cast<uint32_t>(take(model.configured.get_async_queue_size(), "get_async_queue_size"));
    loaded.queue_depth = model.depth;

    model.slots = std::vector<Slot>(load.slots);
    for (uint64_t i = 0; i < load.slots; i++) {
        auto bindings = take(model.configured.create_bindings(), "create_bindings");
        auto in = take(bindings.input(), "bindings input");
        auto out = take(bindings.output(), "bindings output");
        check(in.set_buffer({memory.data + load.input_offset + i * load.input_stride, loaded.input.frame_bytes}), "set_buffer input");
        check(out.set_buffer({memory.data + load.output_offset + i * load.output_stride, loaded.output.frame_bytes}),
            "set_buffer output");
        model.slots[i].bindings = bindings;
    }
}
