package fleet

import (
	"fmt"
	"math"
	"testing"
)

// TestOwner checks what cameras are placed by: shares by weight, and that only the affected move.
func TestOwner(t *testing.T) {
	if owner("door", nil) != "" {
		t.Error("nobody is there")
	}
	all := []candidate{{"a", 335}, {"b", 335}, {"c", 72}}
	const cameras = 20000
	count, of := map[string]int{}, map[string]string{}
	for i := range cameras {
		camera := fmt.Sprint("camera ", i)
		of[camera] = owner(camera, all)
		count[of[camera]]++
		if again := owner(camera, []candidate{all[2], all[0], all[1]}); again != of[camera] {
			t.Fatal("it depends on the order")
		}
	}
	for _, c := range all {
		share := c.weight / 742
		sigma := math.Sqrt(cameras * share * (1 - share))
		if math.Abs(float64(count[c.node])-cameras*share) > 5*sigma {
			t.Errorf("%s has %d of %d, its share is %.3f", c.node, count[c.node], cameras, share)
		}
	}
	moved := 0
	for camera, before := range of {
		without := owner(camera, all[:2]) // c goes
		if before != "c" && without != before {
			t.Fatalf("%s moves from %s to %s because c goes", camera, before, without)
		}
		more := owner(camera, append(all[:3:3], candidate{"d", 335})) // d comes
		if more != before && more != "d" {
			t.Fatalf("%s moves from %s to %s because d comes", camera, before, more)
		}
		faster := owner(camera, []candidate{all[0], all[1], {"c", 144}})
		if faster != before && faster != "c" {
			t.Fatalf("%s moves from %s to %s because c is faster", camera, before, faster)
		}
		if more == "d" {
			moved++
		}
	}
	if share := 335.0 / 1077; math.Abs(float64(moved)/cameras-share) > 0.02 {
		t.Errorf("d gets %d of %d", moved, cameras)
	}
}

func TestWeight(t *testing.T) {
	for rate, want := range map[float64]float64{0: 1, 1: 1, 4: 4, 335: 362.04, 300: 256, 72: 64, -1: 1} {
		if got := weightOf(rate); math.Abs(got-want) > 0.01 {
			t.Errorf("%v images/s weigh %v, want %v", rate, got, want)
		}
	}
}
