"""scripts/demo: the same Deployment through the default scheduler and through warmnode, side by side.

`scenario` says what is in the cluster, `stage` runs it, `findings` compares, `page` shows. Every line that is printed
was read from the API server or from `warmnode plan`.
"""
