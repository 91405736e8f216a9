// The simulated chip behind the fake hailort.hpp.
//
// One device, shared by the models of a session. It runs min(waiting, batch) frames of one model
// at a time, which takes (a + b n) ms by the numbers in the HEF; higher priority first, then round
// robin. Completions are called on one reader thread, as in the vendor's library. The output is a
// function of the input bytes alone.
//
// The environment variable HAILO_FAKE, "name=value,name=value", sets what is named in the calls
// of option() here and in fake_calls.hpp.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <mutex>
#include <thread>

namespace fake {

using Clock = std::chrono::steady_clock;

[[noreturn]] inline void misuse(const char *what)
{
    std::fprintf(stderr, "fake HailoRT: misuse: %s\n", what);
    std::abort();
}

inline double option(const char *name, double fallback)
{
    const char *at = std::getenv("HAILO_FAKE");
    for (size_t n = std::strlen(name); at != nullptr; at = std::strchr(at, ',')) {
        at += *at == ',';
        if (std::strncmp(at, name, n) == 0 && at[n] == '=') {
            return std::atof(at + n + 1);
        }
    }
    return fallback;
}

inline hailo_status status_option(const char *name) { return static_cast<hailo_status>(static_cast<int>(option(name, 0))); }

// "scale" makes the chip, and only the chip, faster or slower.
inline void run_for(double ms) { std::this_thread::sleep_for(std::chrono::duration<double, std::milli>(ms * option("scale", 1))); }

// The file that the environment variable names gets a character.
inline void note(const char *variable, char what)
{
    if (const char *at = std::getenv(variable)) {
        const std::unique_ptr<std::FILE, int (*)(std::FILE *)> file(std::fopen(at, "a"), std::fclose);
        std::fputc(what, file.get());
    }
}

// HAILO_FAKE_DEVICES gets a + for every Device object on the chip and a - when it is let go of.
inline void device_opened() { note("HAILO_FAKE_DEVICES", '+'); }
inline void device_closed() { note("HAILO_FAKE_DEVICES", '-'); }

// HAILO_FAKE_RUNS gets the number of frames of each run, as one character from 1 on.
inline void run_begins(size_t frames) { note("HAILO_FAKE_RUNS", static_cast<char>('0' + frames)); }

inline thread_local bool in_callback = false;

inline void outside_callback(const char *call)
{
    if (in_callback) {
        misuse(call);
    }
}

struct Stream {
    std::string name;
    uint32_t height = 0, width = 0, features = 0, bytes = 0, quants = 1;
    size_t frame_size() const { return size_t{height} * width * features * bytes; }
};

constexpr auto request_timeout = std::chrono::milliseconds(100); // stands for the library's 3 or 10 s

// A HEF of the fake is the vendor's four magic bytes and a line of text.
struct Hef {
    Stream input, output;
    double a = 0, b = 0; // a run of n frames takes a + b n milliseconds
};

struct Buffer {
    uint8_t *data = nullptr;
    size_t size = 0;
};

struct Job {
    Buffer input, output;
    std::function<void(hailo_status)> done;
    hailo_status status = HAILO_SUCCESS;
    bool lost = false, blank = false; // the callback does not come; it comes, but nothing was written
};

// FNV-1a over 8-byte words, then splitmix64 for as many bytes as the output has.
inline void infer(const Hef &hef, const Job &job)
{
    uint64_t h = 14695981039346656037U;
    for (size_t i = 0; i < job.input.size; i += 8) {
        uint64_t word = 0;
        std::memcpy(&word, job.input.data + i, std::min<size_t>(8, job.input.size - i));
        h = (h ^ word) * 1099511628211U;
    }
    const size_t step = hef.output.bytes == 4 ? 4 : 1;
    for (size_t i = 0; i < job.output.size; i += step) {
        uint64_t z = h + (i / step + 1) * 0x9e3779b97f4a7c15U;
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9U;
        z = (z ^ (z >> 27)) * 0x94d049bb133111ebU;
        const auto byte = static_cast<uint8_t>(z >> 56);
        const float value = static_cast<float>(byte) / 255;
        std::memcpy(job.output.data + i, step == 4 ? static_cast<const void *>(&value) : &byte, step);
    }
}

struct Network {
    Hef hef;
    uint32_t batch = 0, threshold = 0, priority = 16;
    std::chrono::milliseconds timeout{0};
    std::deque<Job> waiting;
    Clock::time_point first; // when the oldest of waiting came
    size_t in_flight = 0;    // from run_async until just before the callback
    bool usable = true;
    size_t depth() const { return std::max<size_t>(32, 2 * size_t{batch}); }
};

class Session {
public:
    Session() : m_engine([this] { engine(); }), m_reader([this] { reader(); }) {}
    Session(const Session &) = delete;
    Session &operator=(const Session &) = delete;

    // As in the library: every callback has been called when the session is gone.
    ~Session()
    {
        if (m_hung) {
            std::this_thread::sleep_for(std::chrono::seconds(10));
        }
        std::this_thread::sleep_for(std::chrono::milliseconds(static_cast<int>(option("teardown_ms", 0))));
        std::unique_lock lock(m_mutex);
        m_stop = true;
        close(lock);
        lock.unlock();
        m_engine.join();
        m_reader.join();
    }

    void add(const std::shared_ptr<Network> &network)
    {
        const std::lock_guard lock(m_mutex);
        m_networks.push_back(network);
    }

    bool wait_ready(Network &network, std::chrono::milliseconds timeout, uint32_t frames)
    {
        std::unique_lock lock(m_mutex);
        return m_changed.wait_for(lock, timeout, [&] { return network.in_flight + frames <= network.depth(); });
    }

    hailo_status submit(const std::shared_ptr<Network> &network, Job job)
    {
        std::unique_lock lock(m_mutex);
        if (!network->usable) {
            misuse("run_async after the model was shut down");
        }
        if (network->in_flight >= network->depth()) {
            misuse("run_async with a full queue");
        }
        const double n = static_cast<double>(++m_frames);
        hailo_status status = m_closed ? HAILO_COMMUNICATION_CLOSED : HAILO_SUCCESS;
        if (n == option("run_error_at", 0)) {
            status = status_option("run_error");
        }
        if (status != HAILO_SUCCESS) {
            // The library shuts the model down, and calls the callback of this job all the same when the model or the session ends.
            m_told_lost = m_told_lost || status == HAILO_COMMUNICATION_CLOSED;
            network->usable = false;
            network->in_flight++;
            network->waiting.push_back(std::move(job));
            return status;
        }
        if (n == option("error_at", 0) || n >= option("error_from", 1e9)) {
            job.status = status_option("error");
        }
        job.lost = n == option("lost_at", 0);
        job.blank = n == option("blank_at", 0);
        m_hung = m_hung || n == option("hang_at", 0);
        if (network->waiting.empty()) {
            network->first = Clock::now();
        }
        network->in_flight++;
        network->waiting.push_back(std::move(job));
        if (n == option("close_at", 0)) {
            close(lock);
        }
        m_changed.notify_all();
        return HAILO_SUCCESS;
    }

    // The chip gives back the frames that wait, and finishes those that run; a callback that it has lost does not come.
    hailo_status shut(const std::shared_ptr<Network> &network)
    {
        std::unique_lock lock(m_mutex);
        if (const auto status = answers(lock)) {
            return status;
        }
        network->usable = false;
        for (; !network->waiting.empty(); network->waiting.pop_front()) {
            network->waiting.front().status = HAILO_STREAM_ABORT;
            m_finished.emplace_back(network, std::move(network->waiting.front()));
        }
        m_changed.notify_all();
        return HAILO_SUCCESS;
    }

    // The reply to any request comes after the callbacks before it, on the same thread.
    hailo_status ask()
    {
        std::unique_lock lock(m_mutex);
        const auto status = answers(lock);
        m_changed.wait(lock, [this] { return m_finished.empty() && !m_calling; });
        return status;
    }

    // The chip's server dies.
    void die()
    {
        std::unique_lock lock(m_mutex);
        close(lock);
    }

    // Models of the session, on the chip too. Its server cleans them up after the vdevice, of which they then use what is freed:
    // their buffers are unmapped by it.
    void hold() { m_models++; }
    void drop() { m_models--; }
    void release()
    {
        const std::lock_guard lock(m_mutex);
        if (m_models > 0 && !m_closed && !m_told_lost) {
            misuse("the vdevice released before its models, with a live session: the chip's server uses freed memory");
        }
        if (m_hung) {
            misuse("a teardown with a silent chip: it takes 10 s for each object");
        }
    }

    size_t in_flight(const Network &network)
    {
        const std::lock_guard lock(m_mutex);
        return network.in_flight;
    }

private:
    using Item = std::pair<std::shared_ptr<Network>, Job>;

    // What becomes of a request: the reply, nothing until the library gives up, or the end of the session.
    hailo_status answers(std::unique_lock<std::mutex> &lock)
    {
        if (m_hung) {
            lock.unlock();
            std::this_thread::sleep_for(request_timeout);
            lock.lock();
            return HAILO_TIMEOUT;
        }
        m_told_lost = m_told_lost || m_closed;
        return m_closed ? HAILO_COMMUNICATION_CLOSED : HAILO_SUCCESS;
    }

    // The chip's server is gone: every job that is still out ends, all at once.
    void close(std::unique_lock<std::mutex> &)
    {
        m_closed = true;
        for (const auto &network : m_networks) {
            for (; !network->waiting.empty(); network->waiting.pop_front()) {
                m_lost.emplace_back(network, std::move(network->waiting.front()));
            }
        }
        for (; !m_lost.empty(); m_lost.pop_front()) {
            m_lost.front().second.status = HAILO_COMMUNICATION_CLOSED;
            m_finished.push_back(std::move(m_lost.front()));
        }
        m_changed.notify_all();
    }

    std::shared_ptr<Network> next(Clock::time_point now)
    {
        std::shared_ptr<Network> best;
        for (size_t i = 0; i < m_networks.size() && !m_hung && !m_closed; i++) {
            const auto &network = m_networks[(m_turn + i) % m_networks.size()];
            const size_t waiting = network->waiting.size();
            const bool ready = network->usable && waiting > 0 && (waiting >= network->threshold || now - network->first >= network->timeout);
            if (ready && (!best || network->priority > best->priority)) {
                best = network;
            }
        }
        return best;
    }

    void engine()
    {
        std::unique_lock lock(m_mutex);
        while (!m_stop) {
            const auto network = next(Clock::now());
            if (!network) {
                m_changed.wait_for(lock, std::chrono::milliseconds(2));
                continue;
            }
            m_turn++;
            std::vector<Job> run;
            while (run.size() < network->batch && !network->waiting.empty()) {
                run.push_back(std::move(network->waiting.front()));
                network->waiting.pop_front();
            }
            network->first = Clock::now();
            lock.unlock();
            run_begins(run.size());
            run_for(network->hef.a + network->hef.b * static_cast<double>(run.size()));
            for (const auto &job : run) {
                if (!job.blank) {
                    infer(network->hef, job);
                }
            }
            lock.lock();
            for (auto &job : run) {
                const bool lost = job.lost && !m_closed;
                job.status = m_closed ? HAILO_COMMUNICATION_CLOSED : job.status;
                (lost ? m_lost : m_finished).emplace_back(network, std::move(job));
            }
            m_changed.notify_all();
        }
        m_engine_ended = true;
        m_changed.notify_all();
    }

    void reader()
    {
        std::unique_lock lock(m_mutex);
        while (true) {
            m_changed.wait(lock, [this] { return !m_finished.empty() || m_engine_ended; });
            if (m_finished.empty()) {
                return;
            }
            auto [network, job] = std::move(m_finished.front());
            m_finished.pop_front();
            m_calling = true;
            lock.unlock();
            in_callback = true;
            job.done(job.status);
            job.done = nullptr;
            in_callback = false;
            // The library is not done with a model when it has called back: "late_ms" is how much longer.
            std::this_thread::sleep_for(std::chrono::milliseconds(static_cast<int>(option("late_ms", 0))));
            lock.lock();
            m_calling = false;
            network->in_flight--;
            m_changed.notify_all();
        }
    }

    std::mutex m_mutex;
    std::condition_variable m_changed;
    std::vector<std::shared_ptr<Network>> m_networks;
    std::deque<Item> m_finished, m_lost;
    size_t m_turn = 0, m_frames = 0;
    bool m_hung = false, m_closed = false, m_told_lost = false, m_stop = false, m_engine_ended = false, m_calling = false;
    std::atomic<int> m_models{0};
    std::thread m_engine, m_reader; // last: they use the rest
};

inline std::weak_ptr<Session> latest;

// A model that was configured. The library frees it badly while jobs are out, unless the session went first.
struct Configured {
    std::weak_ptr<Session> session;
    std::shared_ptr<Network> network;

    Configured(const std::shared_ptr<Session> &s, std::shared_ptr<Network> n) : session(s), network(std::move(n)) { s->add(network); }
    Configured(const Configured &) = delete;
    Configured &operator=(const Configured &) = delete;
    ~Configured()
    {
        outside_callback("~ConfiguredInferModel");
        const auto alive = session.lock();
        if (alive && alive->in_flight(*network) > 0) {
            misuse("a configured model destroyed before the vdevice, with jobs in flight");
        }
    }
    std::shared_ptr<Session> use(const char *call) const
    {
        outside_callback(call);
        auto alive = session.lock();
        if (!alive) {
            misuse("a configured model used after the vdevice was released");
        }
        return alive;
    }
};

} // namespace fake
