// How the chip is: temperature, load, and what it reports by itself.
#pragma once

#include "channel.h"
#include "runtime.h"

#include <atomic>
#include <limits>
#include <memory>

// Statistics opens the device once more, for everything but frames: the chip serves the requests
// of one connection one after the other, and it sleeps while it measures its load, so over the
// connection of the vdevice every measurement would hold up the frames for as long.
//
// What cannot be had is left out: frames may flow all the same, and whether they do is for the
// host to judge. One thread uses an object; notifications come on the library's.
class Statistics {
public:
    explicit Statistics(std::string device_id) : m_id(std::move(device_id)) {}

    // ask fills in what the chip tells now. It blocks as long as the chip does not answer, which
    // the library ends after 10 s. False: the chip has closed this connection.
    bool ask(protocol::Stats &stats)
    {
        bool open = true;
        const bool measure = m_round++ % measure_every == 0;
        stats.temperature[0] = stats.temperature[1] = unknown;
        if (measure) {
            stats.nn_core = stats.cpu = unknown;
            stats.memory = stats.used = 0;
        }
        std::string trouble;
        try {
            if (!m_device) {
                observe();
            }
            const auto temperature = take(m_device->get_chip_temperature(), "get_chip_temperature");
            stats.temperature[0] = temperature.ts0_temperature;
            stats.temperature[1] = temperature.ts1_temperature;
            if (measure) {
                const auto load = take(m_device->query_performance_stats(), "query_performance_stats");
                stats.nn_core = load.nnc_utilization < 0 ? unknown : load.nnc_utilization;
                stats.cpu = load.cpu_utilization < 0 ? unknown : load.cpu_utilization;
                stats.memory = bytes(load.ram_size_total);
                stats.used = bytes(load.ram_size_used);
            }
        } catch (const Failure &failure) {
            trouble = failure.what();
            if (failure.status == HAILO_COMMUNICATION_CLOSED) {
                m_device.reset(); // opened again the next time
                open = false;
            }
        }
        if (!trouble.empty() && trouble != m_trouble) {
            log("statistics: " + trouble);
        }
        m_trouble = trouble;
        stats.zone = m_zone;
        stats.throttling = m_throttling;
        stats.overcurrent = m_overcurrent;
        stats.crc_errors = m_crc_errors;
        return open;
    }

private:
    static constexpr float unknown = std::numeric_limits<float>::quiet_NaN();
    static constexpr unsigned measure_every = 10; // it starts programs on the chip's CPU, which the frames need too

    // By value: the members of the vendor's packed structures are not aligned, so nothing may refer to them.
    static uint64_t bytes(int64_t n) { return n < 0 ? 0 : static_cast<uint64_t>(n); }

    // The notifications that a Hailo-10H has, by number: not every header names the last one.
    enum Notification { temperature_alarm = 1, overcurrent_alarm = 3, crc_error = 13, throttling_change = 14 };

    void observe()
    {
        // What the connection before told holds no more: its end of an alarm may have been lost.
        m_zone = m_throttling = m_overcurrent = 0;
        m_device = take(hailort::Device::create(m_id), "open the device");
        for (const auto id : {temperature_alarm, overcurrent_alarm, crc_error, throttling_change}) {
            const auto status = m_device->set_notification_callback(
                [this](hailort::Device &, const hailo_notification_t &n, void *) { notice(n); }, static_cast<hailo_notification_id_t>(id),
                nullptr);
            if (status != HAILO_SUCCESS) {
                log("statistics: no notification " + std::to_string(id) + ": " + Failure::name(status));
            }
        }
    }

    void notice(const hailo_notification_t &n)
    {
        uint16_t state = 0; // what the body of a throttling change begins with
        std::memcpy(&state, &n.body, sizeof(state));
        switch (static_cast<int>(n.id)) {
        case temperature_alarm:
            m_zone = static_cast<uint32_t>(n.body.health_monitor_temperature_alarm_notification.temperature_zone);
            break;
        case overcurrent_alarm:
            m_overcurrent = n.body.health_monitor_overcurrent_alert_notification.overcurrent_zone != 0 ? 1 : 0;
            break;
        case crc_error:
            m_crc_errors++;
            break;
        case throttling_change:
            m_throttling = state;
            break;
        default:
            break;
        }
    }

    std::string m_id, m_trouble;
    unsigned m_round = 0;
    std::atomic<uint32_t> m_zone{0}, m_throttling{0}, m_overcurrent{0}, m_crc_errors{0};
    std::unique_ptr<hailort::Device> m_device; // last: its thread uses the rest
};
