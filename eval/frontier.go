package eval

// frontierPlots show what recomputing more buys and costs, in both ways.
type frontierPlots struct {
	KL, TTFT *scatter
	Ways     []wayHue
}

type wayHue struct {
	Name string
	Hue  int
}

// newFrontierPlots draws a point for each trial of each pair, or returns nil
// where there are none.
func newFrontierPlots(results []Result) *frontierPlots {
	ways := []wayHue{{"agent", 0}, {"slot", 1}}
	hue := map[string]int{}
	for _, w := range ways {
		hue[w.Name] = w.Hue
	}
	var points []Result
	for i := range results {
		for _, t := range results[i].Trials {
			// A scatter draws results: a trial is one, its way the group.
			points = append(points, Result{ID: results[i].ID, Group: t.Way, Recomputed: t.Work, KLMean: t.KLMean, TTFTShared: t.TTFT, Error: t.Error})
		}
	}
	if points == nil {
		return nil
	}
	return &frontierPlots{
		KL:   newScatter(points, hue, func(p *Result) (float64, float64) { return p.Recomputed, p.KLMean }, leastKL, 1),
		TTFT: newScatter(points, hue, func(p *Result) (float64, float64) { return p.Recomputed, p.TTFTShared }, leastTTFT, 1000),
		Ways: ways,
	}
}

// leastTTFT is where the axis of TTFT starts, in ms.
const leastTTFT = 10
