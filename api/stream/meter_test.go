package stream

import (
	"testing"
	"testing/synctest"
	"time"
)

// TestDegraded has ten frames a second, of which the lag in each second is told, or which are superseded.
func TestDegraded(t *testing.T) {
	const none, lost = -1, -2
	for name, c := range map[string]struct {
		lags []int // by second, in milliseconds
		want bool
	}{
		"short":          {[]int{1000, 2000}, false},
		"even":           {[]int{300, 300, 300, 300, 300, 300, 300, 300, 300, 300, 300}, false},
		"small":          {[]int{9, 9, 9, 9, 9, 9, 90, 90, 90, 90, 90, 90}, false},
		"grown":          {[]int{100, 100, 100, 100, 100, 100, 160, 160, 160, 160, 160}, true},
		"growing":        {[]int{10, 20, 40, 60, 80, 100, 120, 140, 160, 180, 200, 220}, true},
		"back":           {[]int{10, 20, 40, 60, 80, 100, 120, 140, 160, 180, 200, 220, 20, 20, 20, 20, 20}, false},
		"idle":           {[]int{100, none, none, none, none, none, 200, 200, none, none, none, none}, false},
		"superseded":     {[]int{lost, lost, lost, lost, lost, lost, lost, lost, lost, lost, lost}, true},
		"nine of them":   {[]int{5, lost, lost, lost, lost, lost, lost, lost, lost, lost, 5}, false},
		"once in a time": {[]int{lost, lost, lost, lost, lost, lost, lost, 5, lost, lost, lost, lost}, false},
		"long ago":       {[]int{lost, lost, lost, lost, lost, lost, lost, lost, lost, lost, lost, none, none}, false},
	} {
		synctest.Test(t, func(t *testing.T) {
			var m meter
			start := time.Now()
			for _, lag := range c.lags {
				for range 10 {
					a := Answer{Lag: time.Duration(lag) * time.Millisecond}
					if lag == lost {
						a.Dropped = Superseded
					}
					if lag != none {
						m.outcome(&a, time.Since(start))
					}
					time.Sleep(100 * time.Millisecond)
				}
			}
			if got := m.degraded(time.Since(start)); got != c.want {
				t.Errorf("%s: %v", name, got)
			}
		})
	}
}

// TestLag: the average follows, and the maximum is of the last ten seconds.
func TestLag(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		y := newYard(t, func(y *yard) { y.chip.takes = 50 * time.Millisecond })
		s := y.feed("gate", plainStream)
		s.every(time.Second, "red")
		s.Close()
		for range 2 {
			stats := []Stats{y.Stats().Stats}
			info, err := y.Get("gate")
			if err != nil {
				t.Fatal(err)
			}
			for _, st := range append(stats, info.Stats) {
				if st.Frames != 1 || st.Answered != 1 || st.LagMS != 50 || st.LagMaxMS != 50 || info.Degraded || info.Fed {
					t.Errorf("%+v", st)
				}
			}
		}
		time.Sleep(10 * time.Second)
		if st := y.Stats(); st.LagMS != 50 || st.LagMaxMS != 0 {
			t.Errorf("%+v", st)
		}
	})
}

// TestDegradedStream: a stream of which frames are superseded all the time says so, until it is better.
func TestDegradedStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		y := newYard(t, func(y *yard) { y.chip.takes = 40 * time.Millisecond })
		s := y.feed("gate", plainStream)
		for i := range 12 {
			s.every(20*time.Millisecond, times(50, "red")...)
			if got := y.Stats().Degraded == 1; got != (i >= 10) {
				t.Errorf("after %d s: degraded %v", i+1, got)
			}
		}
		for range 11 {
			s.every(100*time.Millisecond, times(10, "red")...)
		}
		if info, err := y.Get("gate"); err != nil || info.Degraded || y.Stats().Degraded != 0 {
			t.Errorf("%+v, %v", info, err)
		}
		s.Close()
	})
}
