# The worker that speaks to HailoRT, hailo-clip-npu, is made for the version of HailoRT that is installed:
#   sudo apt install g++ h10-hailort && sudo make -C /usr/share/hailo-clip/worker
#   sudo systemctl restart hailo-clip
# To be done again after an upgrade of HailoRT.
HEADER := $(firstword $(wildcard /usr/include/hailo/hailort.hpp /usr/local/include/hailo/hailort.hpp))
TO     := /usr/lib/hailo-clip/hailo-clip-npu

.PHONY: $(TO)
$(TO):
	@[ -n "$(HEADER)" ] || { echo "hailo/hailort.hpp is not installed: sudo apt install h10-hailort"; exit 1; }
	g++ -std=c++17 -O2 -I$(patsubst %/hailo/,%,$(dir $(HEADER))) -o $(TO).new *.cpp -lhailort -pthread
	mv $(TO).new $(TO)
