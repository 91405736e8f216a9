package configs

import (
	"fmt"
	"strconv"
	"strings"

	"hailoclip/hailo/open"
)

// Warnings says what is allowed but makes the service slow, each with the key and what to write instead. The file of the former
// service has two of these.
func (c Config) Warnings() []string {
	var all []string
	switch n := c.CLIP.Batch(); {
	case n == 1:
		all = append(all, "clip.batch_size: 1 makes the NPU 4.7 times slower: 72 images a second instead of 335; write batch_size: auto")
	case n < open.DefaultBatch:
		all = append(all, fmt.Sprintf("clip.batch_size: %d makes the NPU slower than it can be; write batch_size: auto", n))
	}
	if low := QuotaWarning(c.ResourceLimits.CPUQuota); low != "" {
		all = append(all, "resource_limits.cpu_quota: "+low+`; write cpu_quota: "", or at least "200%"`)
	}
	return all
}

// QuotaWarning says what a CPUQuota of systemd, such as "80%" of one core, does if it is too low, else "". Two workers decode images
// while others read, resize and answer.
func QuotaWarning(quota string) string {
	if percent, err := strconv.Atoi(strings.TrimSuffix(quota, "%")); err != nil || percent >= 200 {
		return ""
	}
	return quota + " counts one core as 100%, and with less than two the service stops again and again under load"
}
