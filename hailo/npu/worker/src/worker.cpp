// hailo-clip-npu holds the Hailo-10H for hailo-clip: it opens the device, loads the models and runs
// the frames that the host has put into shared memory. The protocol is in ../../doc.go.
//
// Three threads besides the library's own: main reads the socket and makes every call about models;
// one asks for statistics; one sees the host die while main is inside a call. Completions come on
// the library's only reader thread, where no call of the library can end, so they only count and
// send.

#include "channel.h"
#include "model.h"
#include "process.h"
#include "statistics.h"

#include <array>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <thread>

using namespace std::chrono_literals;

namespace {

class Worker {
public:
    Worker() : m_lost(make_event()), m_stop(make_event()) {}
    ~Worker() { stop(); }
    Worker(const Worker &) = delete;
    Worker(Worker &&) = delete;
    Worker &operator=(const Worker &) = delete;
    Worker &operator=(Worker &&) = delete;

    // run serves the host until it says shutdown or closes its end. It throws Violation, Failure
    // or another exception when it cannot go on.
    void run();

private:
    bool receive();
    void open();
    void map(uint64_t size);
    void load(const protocol::Load &load);
    void submit(const protocol::Submit &submit);
    void finish(Model &model, const protocol::Submit &submit, hailo_status status);
    void report(const std::string &device_id);
    void watch() const;
    void stop();

    Packet m_packet{};
    Memory m_memory;
    std::unique_ptr<hailort::VDevice> m_vdevice;
    std::array<std::unique_ptr<Model>, protocol::models> m_models;
    int m_lost, m_stop; // events: main, or the other threads, must end
    std::atomic<uint64_t> m_frames{0};
    bool m_submitted = false;
    std::thread m_report, m_watch;
};

// receive waits for a packet. False: the host has closed its end.
bool Worker::receive()
{
    if (wait_for(host_fd, POLLIN, m_lost, -1)) {
        throw Failure(HAILO_COMMUNICATION_CLOSED, "the session with the device has ended");
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
        case protocol::shutdown:
            (void)m_packet.as<protocol::Shutdown>();
            return;
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
        put(hello.architecture, architecture_of(*m_vdevice));
    } catch (const Failure &failure) {
        hello.status = failure.status;
        put(hello.text, failure.what());
        send(hello);
        throw;
    }
    send(hello);
    m_report = std::thread([this, id] {
        try {
            report(id);
        } catch (const std::exception &e) {
            log(std::string("statistics: ") + e.what());
            raise_event(m_lost);
        }
    });
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
    const auto loaded = std::make_unique<protocol::Loaded>(); // large for a stack
    loaded->model = load.model;
    try {
        m_models[load.model] = make_model(*m_vdevice, m_memory, load, *loaded);
    } catch (const Failure &failure) {
        loaded->status = failure.status;
        put(loaded->text, failure.what());
        send(*loaded);
        throw;
    }
    send(*loaded);
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
    if (!m_submitted) {
        m_submitted = true;
        shorten_requests();
    }
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
    const int lost = m_lost;
    // Before the answer, upon which the host may submit again. With the last frame stop() goes on, so
    // from here on neither the model nor the worker nor the submit is there for certain.
    model.in_flight--;
    send(done);
    if (status == HAILO_COMMUNICATION_CLOSED) {
        raise_event(lost);
    }
}

// report tells the host about once a second how the chip is.
void Worker::report(const std::string &device_id)
{
    Statistics statistics(device_id);
    protocol::Stats stats{};
    do {
        statistics.ask(stats);
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

// stop lets go of the device in the only order that is safe with frames in flight: the vdevice
// first, which makes every callback come; then the models; then the memory.
void Worker::stop()
{
    limit();
    raise_event(m_stop);
    m_vdevice.reset();
    for (auto &model : m_models) {
        while (model && model->in_flight > 0) {
            std::this_thread::sleep_for(1ms); // the limit ends this when a callback never comes
        }
        model.reset();
    }
    for (auto *thread : {&m_report, &m_watch}) {
        if (thread->joinable()) {
            thread->join();
        }
    }
    if (m_memory.data != nullptr) {
        munmap(m_memory.data, m_memory.size);
    }
}

int serve()
{
    int type = 0;
    socklen_t size = sizeof(type);
    if (getsockopt(host_fd, SOL_SOCKET, SO_TYPE, &type, &size) < 0 || type != SOCK_SEQPACKET) {
        log("descriptor 3 is not a socket of hailo-clip, which starts this program");
        return exit_violation;
    }
    fcntl(host_fd, F_SETFL, 0); // blocking
    fcntl(host_fd, F_SETFD, FD_CLOEXEC);
    fcntl(memory_fd, F_SETFD, FD_CLOEXEC);
    // The host decides when we end; a terminal and systemd signal us while it still drains.
    for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGPIPE}) {
        (void)std::signal(signal, SIG_IGN);
    }
    (void)std::signal(SIGALRM, out_of_time);
    Worker worker;
    try {
        worker.run();
        return exit_done;
    } catch (const Violation &violation) {
        log(std::string("protocol violation: ") + violation.what());
        return exit_violation;
    } catch (const std::exception &e) {
        log(e.what());
        return exit_failed;
    }
}

int print_version()
{
    try {
        const std::string line =
            "hailo-clip-npu protocol " + std::to_string(protocol::version) + ", HailoRT " + runtime_version() + "\n";
        return write(STDOUT_FILENO, line.data(), line.size()) < 0 ? exit_failed : exit_done;
    } catch (const std::exception &e) {
        log(e.what());
        return exit_failed;
    }
}

} // namespace

int main(int argc, char **argv)
{
    if (argc == 2 && std::string_view(argv[1]) == "--version") {
        return print_version();
    }
    if (argc != 1) {
        log("usage: hailo-clip-npu [--version]; hailo-clip starts it");
        return exit_violation;
    }
    return serve();
}
