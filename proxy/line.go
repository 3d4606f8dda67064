package proxy

// line is a straight line through observations, the older ones counting less:
// weighted least squares, kept as moments.
type line struct{ w, x, y, xx, xy float64 }

const (
	decayWeight = 0.9  // weight of what was known at each new observation
	priorWeight = 0.3  // of each of the two points that stand for the prior
	priorSpan   = 4000 // positions between them
)

// prior starts the line at a + b*x.
func (l *line) prior(a, b float64) {
	l.point(0, a, priorWeight)
	l.point(priorSpan, a+b*priorSpan, priorWeight)
}

func (l *line) add(x, y float64) {
	for _, m := range []*float64{&l.w, &l.x, &l.y, &l.xx, &l.xy} {
		*m *= decayWeight
	}
	l.point(x, y, 1)
}

// mix makes part of l's weight that of another line.
func (l *line) mix(other line, part float64) {
	mine, its := 1-part, part*l.w/other.w
	l.w = mine*l.w + its*other.w
	l.x = mine*l.x + its*other.x
	l.y = mine*l.y + its*other.y
	l.xx = mine*l.xx + its*other.xx
	l.xy = mine*l.xy + its*other.xy
}

func (l *line) point(x, y, w float64) {
	l.w += w
	l.x += w * x
	l.y += w * y
	l.xx += w * x * x
	l.xy += w * x * y
}

// at is what the line says of position x.
func (l *line) at(x int) float64 {
	a, b := l.fit()
	return a + b*float64(x)
}

// fit returns a and b of y = a + b*x, neither negative. Observations all in one
// place say nothing of the slope, which then is shared between both.
func (l *line) fit() (a, b float64) {
	const ridge = 1e5 // square positions: keeps the slope tame
	b = max(0, (l.w*l.xy-l.x*l.y)/(l.w*l.xx-l.x*l.x+ridge))
	a = (l.y - b*l.x) / l.w
	if a < 0 {
		return 0, l.xy / l.xx
	}
	return a, b
}
