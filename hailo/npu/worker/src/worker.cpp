// Serving the host: what it asks is done, and what becomes of it is said.
#include "worker.h"

#include "statistics.h"

#include <sys/mman.h>
#include <sys/stat.h>

using namespace std::chrono_literals;

// receive waits for a packet. False: the host has closed its end.
bool Worker::receive()
{
    while (wait_for(host_fd, POLLIN, m_wake, -1)) {
        lower_event(m_wake);
        if (m_session == Session::lost) {
            throw Failure(HAILO_COMMUNICATION_CLOSED, "the session with the device has ended");
        }
        (void)identify(*m_vdevice); // the statistics have lost their connection: have we lost ours?
    }
    const ssize_t n = recv(host_fd, m_packet.bytes, sizeof(m_packet.bytes), MSG_TRUNC);
    if (n < 0 && errno != ECONNRESET) {
        throw system_error("recv");
    }
    m_packet.size = n > 0 ? static_cast<size_t>(n) : 0;
    if (m_packet.size > sizeof(m_packet.bytes)) {
        throw Violation("a packet of " + std::to_string(n) + " bytes");
    }
    return m_packet.size > 0;
}

void Worker::run()
{
    try {
        loop();
    } catch (const Failure &failure) {
        note(failure.status);
        throw;
    }
}

void Worker::loop()
{
    m_watch = std::thread([this] { watch(); });
    if (!receive()) {
        return;
    }
    open();
    while (receive()) {
        switch (m_packet.header().type) {
        case protocol::load:
            load(m_packet.as<protocol::Load>());
            break;
        case protocol::submit:
            submit(m_packet.as<protocol::Submit>());
            break;
        default:
            throw Violation("a packet of type " + std::to_string(m_packet.header().type));
        }
    }
}

void Worker::open()
{
    protocol::Open open{};
    constexpr size_t stable = offsetof(protocol::Open, memory); // so much is the same in every version
    std::memcpy(&open, m_packet.bytes, stable);
    if (m_packet.size < stable || open.header.type != protocol::open || open.magic != protocol::magic) {
        throw Violation("the first packet is not open");
    }
    protocol::Hello hello{};
    hello.magic = protocol::magic;
    hello.version = protocol::version;
    std::string id;
    try {
        put(hello.runtime, runtime_version());
        if (open.version != protocol::version) {
            throw Failure(HAILO_INVALID_OPERATION, "the worker speaks protocol " + std::to_string(protocol::version) +
                ", the service " + std::to_string(open.version));
        }
        open = m_packet.as<protocol::Open>();
        id = text_of(open.device);
        const std::string group = text_of(open.group);
        map(open.memory);
        m_vdevice = open_vdevice(id, group);
        put(hello.device, id);
        const auto identity = identify(*m_vdevice);
        put(hello.architecture, architecture_name(identity.device_architecture));
        put(hello.firmware, version_text(identity.fw_version));
    } catch (const Failure &failure) {
        hello.status = failure.status;
        put(hello.text, failure.what());
        send(hello);
        throw;
    }
    send(hello);
    m_report = std::thread([this, id] { report(id); });
}

void Worker::map(uint64_t size)
{
    struct stat memory {};
    if (fstat(memory_fd, &memory) < 0 || size == 0 || static_cast<uint64_t>(memory.st_size) < size) {
        throw Violation("descriptor 4 does not have " + std::to_string(size) + " bytes");
    }
    void *data = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, memory_fd, 0);
    if (data == MAP_FAILED) {
        throw Failure(HAILO_OUT_OF_HOST_MEMORY, "mmap of the frames");
    }
    m_memory = {static_cast<char *>(data), size};
}

void Worker::load(const protocol::Load &load)
{
    if (load.model >= m_models.size() || m_models[load.model]) {
        throw Violation("load of model " + std::to_string(load.model) + ", unknown or loaded already");
    }
    protocol::Loaded loaded{};
    loaded.model = load.model;
    m_models[load.model] = std::make_unique<Model>();
    try {
        load_model(*m_models[load.model], *m_vdevice, m_memory, load, loaded);
    } catch (const Failure &failure) {
        loaded.status = failure.status;
        put(loaded.text, failure.what());
        send(loaded);
        throw;
    }
    send(loaded);
}

void Worker::submit(const protocol::Submit &submit)
{
    if (submit.model >= m_models.size() || !m_models[submit.model]) {
        throw Violation("submit to model " + std::to_string(submit.model) + ", which is not loaded");
    }
    Model &model = *m_models[submit.model];
    if (submit.slot >= model.slots.size() || model.slots[submit.slot].busy) {
        throw Violation("submit of slot " + std::to_string(submit.slot) + ", unknown or in flight");
    }
    if (model.in_flight >= model.depth) {
        throw Violation("more frames than the queue takes");
    }
    if (submit.threshold == 0 || submit.threshold > model.batch) {
        throw Violation("a threshold of " + std::to_string(submit.threshold) + ", want 1 to " + std::to_string(model.batch));
    }
    if (!m_submitted) {
        m_submitted = true;
        shorten_requests();
    }
    set_threshold(model, submit.threshold);
    model.slots[submit.slot].busy = true;
    model.in_flight++;
    // There is room in the queue, so this returns at once unless the chip hangs.
    hailo_status status = model.configured.wait_for_async_ready(1000ms, 1);
    if (status == HAILO_SUCCESS) {
        auto job = model.configured.run_async(model.slots[submit.slot].bindings,
            [this, &model, submit](const hailort::AsyncInferCompletionInfo &info) { finish(model, submit, info.status); });
        if (job) {
            job->detach(); // or its destructor waits for the frame
            return;
        }
        model.failed = true;
        status = job.status();
    }
    // The library has shut the model down. Ending is what brings it back.
    finish(model, submit, status);
    throw Failure(status, "submit a frame");
}

// finish answers a submit. The library may call back even for a run_async that returned an error:
// busy lets only one answer through.
void Worker::finish(Model &model, const protocol::Submit &submit, hailo_status status)
{
    if (!model.slots[submit.slot].busy.exchange(false)) {
        return;
    }
    m_frames++;
    protocol::Done done{};
    done.model = submit.model;
    done.slot = submit.slot;
    done.sequence = submit.sequence;
    done.status = status;
    const int wake = m_wake;
    const bool lost = status == HAILO_COMMUNICATION_CLOSED;
    if (lost) {
        m_session = Session::lost;
    }
    // Before the answer, upon which the host may submit again. With the last frame stop() goes on, so
    // from here on neither the model nor the worker nor the submit is there for certain.
    model.in_flight--;
    send(done);
    if (lost) {
        raise_event(wake);
    }
}

// report tells the host about once a second how the chip is.
void Worker::report(const std::string &device_id)
{
    Statistics statistics(device_id);
    protocol::Stats stats{};
    do {
        if (!statistics.ask(stats)) {
            raise_event(m_wake);
        }
        stats.frames = m_frames;
        send(stats);
    } while (!wait_for(-1, 0, m_stop, 1000));
}

// watch waits for the end of the socket, and then lets main no more than the limit.
void Worker::watch() const
{
    if (!wait_for(host_fd, POLLRDHUP, m_stop, -1)) {
        limit();
    }
}
