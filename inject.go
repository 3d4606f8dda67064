package main

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/go-logr/zerologr"
	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	crlog "sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/semsharekv/semsharekv/configs"
	"github.com/semsharekv/semsharekv/inject"
)

func injectCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "inject --image IMAGE {--cert-dir DIR | --cert-secret NAMESPACE/NAME --service HOST --webhook NAME}",
		Short: "Run the Kubernetes webhook that puts the sidecar into pods",
		Long: "Runs a mutating admission webhook that puts the sidecar into pods with a\n" +
			"llama-server: those with the annotation semsharekv.io/inject: \"true\", and those in\n" +
			"namespaces with the label semsharekv.io/inject: enabled. It serves HTTPS with a\n" +
			"certificate from --cert-dir, or with one of its own that it keeps in a Secret.",
		Args: cobra.NoArgs,
	}
	o := inject.Options{Settings: inject.DefaultSettings()}
	flags := cmd.Flags()
	var secret, kubeconfig string
	slots, budget := resource.QuantityValue{Quantity: o.Settings.SlotSize}, resource.QuantityValue{}
	log := configs.Log{}
	pull := string(o.Settings.PullPolicy)
	flags.StringVar(&o.Settings.Image, "image", "", "`IMAGE` of the sidecar")
	flags.StringVar(&pull, "image-pull-policy", pull, "Always, IfNotPresent or Never")
	flags.StringVar(&o.Settings.PullSecret, "pull-secret", "", "`NAME` of a Secret in the pods' namespaces by which they pull the image; default: the pods' own")
	flags.StringVar(&o.Listen, "listen", ":9443", "`HOST:PORT` of the webhook")
	flags.StringVar(&o.Admin, "admin", ":8090", "`HOST:PORT` of /healthz, /readyz, /metrics")
	flags.StringVar(&o.CertDir, "cert-dir", "", "`DIR` with tls.crt and tls.key, read again when they change")
	flags.StringVar(&secret, "cert-secret", "", "`NAMESPACE/NAME` of the Secret that keeps a self-made certificate")
	flags.StringVar(&o.Host, "service", "", "`HOST` of the webhook's Service, as NAME.NAMESPACE.svc")
	flags.StringVar(&o.Configuration, "webhook", "", "`NAME` of the MutatingWebhookConfiguration whose caBundle is kept")
	flags.DurationVar(&o.MissedEvery, "missed-every", 0, "how often pods that were created without the webhook are counted; 0: never")
	flags.DurationVar(&o.Linger, "linger", 10*time.Second, "how long to go on answering after SIGTERM, while the API server still sends pods here")
	flags.StringVar(&kubeconfig, "kubeconfig", "", "`FILE` that says where the API server is; default: the cluster this runs in")
	flags.Var(&slots, "slot-size", "`SIZE` of the slot directory, in memory")
	flags.Var(&budget, "budget", "most `BYTES` that references take of it; 0: half")
	flags.StringVar(&o.Settings.Reuse, "reuse", "", either(configs.Reuses)+"; default: what the configuration says")
	flags.StringVar(&o.Settings.Config, "config", "", "`NAME` of a ConfigMap with semsharekv.yaml, in the pod's namespace")
	flags.BoolVar(&o.Settings.Agent, "agent", false, "load the agent library into the servers")
	flags.StringVar(&log.Level, "log-level", "info", either(configs.LogLevels))
	flags.StringVar(&log.Format, "log-format", "json", "json or console")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		o.Settings.PullPolicy = corev1.PullPolicy(pull)
		o.Settings.SlotSize, o.Settings.Budget = slots.Quantity, budget.Quantity
		if err := log.Validate(); err != nil {
			return err
		}
		var err error
		if o.Secret, err = secretName(secret); err != nil {
			return err
		}
		if err := o.Check(); err != nil {
			return err
		}
		if o.Cluster, err = cluster(kubeconfig); err != nil {
			return fmt.Errorf("cannot find the API server: %w", err)
		}
		o.Log = newLog(log)
		crlog.SetLogger(zerologr.New(&o.Log))
		return inject.Run(cmd.Context(), o)
	}
	cmd.AddCommand(copyCommand())
	return cmd
}

// secretName reads --cert-secret, which may be left out.
func secretName(text string) (types.NamespacedName, error) {
	namespace, name, _ := strings.Cut(text, "/")
	if text != "" && (namespace == "" || name == "" || strings.Contains(name, "/")) {
		return types.NamespacedName{}, fmt.Errorf("--cert-secret is %q; want NAMESPACE/NAME", text)
	}
	return types.NamespacedName{Namespace: namespace, Name: name}, nil
}

func cluster(kubeconfig string) (*rest.Config, error) {
	if kubeconfig == "" {
		c, err := rest.InClusterConfig()
		if errors.Is(err, rest.ErrNotInCluster) {
			err = errors.New("this is no pod of a cluster; want --kubeconfig FILE")
		}
		return c, err
	}
	return clientcmd.BuildConfigFromFlags("", kubeconfig)
}

func copyCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "copy LIBRARY DIR",
		Short: "Copy a library of the image to a directory that other containers see",
		Args:  exactly(2),
		RunE:  func(_ *cobra.Command, args []string) error { return inject.Copy(args[0], args[1]) },
	}
}
