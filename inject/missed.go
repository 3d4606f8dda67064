package inject

import (
	"context"
	"fmt"
	"time"

	"github.com/rs/zerolog"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// missedPage is how many pods are asked for at once.
const missedPage = 500

// watchMissed counts, every so often, the pods that asked for the sidecar and
// that the webhook never saw: with failurePolicy Ignore nothing else tells.
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
		if err := c.List(ctx, &pods, client.Limit(missedPage), client.Continue(page)); err != nil {
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
