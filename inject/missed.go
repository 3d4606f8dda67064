package inject

import (
	"context"
	"fmt"
	"time"

	"github.com/rs/zerolog"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// missedPage is how many pods are asked for at once.
const missedPage = 500

// unfinished are pods that creating anew would help.
var unfinished = fields.AndSelectors(
	fields.OneTermNotEqualSelector("status.phase", string(corev1.PodSucceeded)),
	fields.OneTermNotEqualSelector("status.phase", string(corev1.PodFailed)))

// watchMissed counts, every so often, the pods whose annotation asks for the sidecar and
// that the webhook never saw: with failurePolicy Ignore nothing else tells. Pods whose
// namespace asks are not counted: telling them would take the right to read namespaces.
func watchMissed(ctx context.Context, c client.Client, every time.Duration, m *metrics, log zerolog.Logger) {
	for ctx.Err() == nil {
		n, err := countMissed(ctx, c)
		if err != nil && ctx.Err() == nil {
			log.Warn().Err(err).Msg("pods that were missed could not be counted")
		} else {
			m.missed.Set(float64(n))
		}
		select {
		case <-ctx.Done():
		case <-time.After(every):
		}
	}
}

func countMissed(ctx context.Context, c client.Client) (n int, err error) {
	page := ""
	for {
		pods := metav1.PartialObjectMetadataList{}
		pods.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("PodList"))
		if err := c.List(ctx, &pods, client.MatchingFieldsSelector{Selector: unfinished}, client.Limit(missedPage), client.Continue(page)); err != nil {
			return 0, fmt.Errorf("cannot list pods: %w", err)
		}
		for i := range pods.Items {
			a := pods.Items[i].Annotations
			if a[annotationInject] == "true" && a[annotationStatus] == "" {
				n++
			}
		}
		if page = pods.Continue; page == "" {
			return n, nil
		}
	}
}
